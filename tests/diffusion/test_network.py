import torch

from diffusion.network import CellDenoiser, count_flops, in_bfloat16, preconditioned


def small_network(**changes) -> CellDenoiser:
    torch.manual_seed(0)
    options = {"image_size": 16, "n_classes": 3, "widths": (16, 32), "n_blocks": (1, 1)}
    network = CellDenoiser(**(options | changes))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


def test_preconditioning_gives_the_network_unit_variance_at_every_noise_level():
    seen = []

    def network(scaled, timesteps, labels):
        seen.append((scaled.std(), timesteps))
        return torch.zeros_like(scaled)

    torch.manual_seed(0)
    clean = 0.3 * torch.randn(64, 3, 16, 16)
    for sigma in (0.01, 0.3, 20.0):
        noised = clean + sigma * torch.randn_like(clean)
        preconditioned(network, 0.3)(noised, torch.full((64,), sigma), torch.zeros(64).long())
    stds = torch.stack([std for std, _ in seen])
    torch.testing.assert_close(stds, torch.ones(3), atol=0.02, rtol=0)


def test_a_silent_network_is_the_best_linear_denoiser_of_centred_data():
    # Wiener filter: E[x|z] = z * sigma_data^2 / (sigma_data^2 + sigma^2)
    noised = torch.randn(2, 3, 8, 8)
    denoise = preconditioned(lambda x, t, c: torch.zeros_like(x), 0.5)
    denoised = denoise(noised, torch.tensor([0.5, 1.0]), torch.zeros(2).long())
    torch.testing.assert_close(denoised[0], noised[0] / 2)
    torch.testing.assert_close(denoised[1], noised[1] / 5)


def test_nearly_clean_images_come_back_as_they_are():
    image = torch.rand(1, 3, 16, 16)
    denoised = small_network().as_denoiser()(image, torch.tensor([1e-6]), torch.tensor([0]))
    torch.testing.assert_close(denoised, image, atol=1e-4, rtol=0)


def test_the_class_changes_the_answer():
    denoise = small_network().as_denoiser()
    noised = torch.randn(1, 3, 16, 16).expand(4, -1, -1, -1)
    denoised = denoise(noised, torch.ones(4), torch.tensor([0, 1, 2, 3]))
    distances = torch.cdist(denoised.flatten(1), denoised.flatten(1))
    assert (distances + torch.eye(4) > 1e-3).all()


def test_an_untrained_network_starts_as_the_identity_of_its_preconditioning():
    torch.manual_seed(0)
    network = CellDenoiser(image_size=16, n_classes=2, widths=(16, 32), n_blocks=(1, 1))
    raw = network(torch.randn(2, 3, 16, 16), torch.zeros(2), torch.tensor([0, 1]))
    assert raw.abs().max() == 0


def test_bfloat16_agrees_to_about_two_digits():
    denoise = small_network().as_denoiser()
    inputs = (torch.randn(2, 3, 16, 16), torch.tensor([0.2, 1.0]), torch.tensor([0, 1]))
    with torch.no_grad():
        exact = denoise(*inputs)
        fast = in_bfloat16(denoise, torch.device("cpu"))(*inputs)
    assert (fast - exact).norm() / exact.norm() < 0.02
    assert fast.dtype == torch.float32


def test_a_pass_is_counted_as_two_operations_for_each_multiplication():
    one = count_flops(small_network())
    assert count_flops(small_network(n_blocks=(2, 2))) > one
    # The stem alone: 3x3 convolution of 48 -> 16 channels on a 4 x 4 grid of patches.
    assert one > 2 * 9 * 48 * 16 * 16
