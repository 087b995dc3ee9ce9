import base64
import json

import httpx
import numpy as np
import pytest
from PIL import Image

from studies.stimuli import read_stimuli
from webapp.errors import WebappError
from webapp.pictures import decode, encode_png, framed, pixel_digest
from webapp.service_client import ServiceClient
from webapp.stimuli import Pictures, build_stimulus_set, real_images

MODEL = {
    "name": "tiny",
    "digest": "c" * 64,
    "class_names": ["basophil", "monocyte"],
    "image_size": 32,
}


def drawn(class_name, seed):
    rng = np.random.default_rng([len(class_name), seed])
    return Image.fromarray(rng.integers(256, size=(32, 32, 3), dtype=np.uint8))


class Service:
    """The /v1 interface, as agreed, over a picture that depends on class and seed only."""

    def __init__(self):
        self.batches = []

    def __call__(self, request):
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"models": [MODEL]})
        form = request.content.decode()
        options = json.loads(form[form.index("{") : form.rindex("}") + 1])
        assert 1 <= options["n_images"] <= 16
        self.batches.append(options["n_images"])
        images = [
            {
                "seed": seed,
                "png_base64": base64.b64encode(
                    encode_png(drawn(options["class_name"], seed))
                ).decode(),
            }
            for seed in range(options["seed"], options["seed"] + options["n_images"])
        ]
        reply = {"id": "1", "model": MODEL, "class_name": options["class_name"], "images": images}
        return httpx.Response(200, json=reply)


def picture_at(path):
    return decode(path.read_bytes(), name=path.name)


def client_of(handler):
    return ServiceClient(
        httpx.Client(base_url="http://service", transport=httpx.MockTransport(handler))
    )


@pytest.fixture
def real(tmp_path):
    rng = np.random.default_rng(3)
    for class_name in MODEL["class_names"]:
        folder = tmp_path / "real" / class_name
        folder.mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(256, size=(48, 40, 3), dtype=np.uint8)
            suffix = ["png", "jpg", "bmp", "tiff"][number % 4]
            Image.fromarray(pixels).save(folder / f"real_{number}.{suffix}")
    return tmp_path / "real"


def build_pools(real, out, *, service=None, main=3, practice=0, attention=0, **options):
    return build_stimulus_set(
        real_images(real),
        client_of(service or Service()),
        per_class=Pictures(main=main, practice=practice, attention=attention),
        out=out,
        **({"seed": 1} | options),
    )


def build(real, out, **options):
    return build_pools(real, out, **options)["main"]


def test_a_stimulus_set_is_half_real_half_generated_in_each_class(real, tmp_path):
    build(real, tmp_path / "out")
    found = read_stimuli(tmp_path / "out")
    for class_name in MODEL["class_names"]:
        for is_synthetic in (True, False):
            assert (
                sum((s.class_name, s.is_synthetic) == (class_name, is_synthetic) for s in found)
                == 3
            )


def test_names_and_their_order_say_nothing(real, tmp_path):
    found = build(real, tmp_path / "out", main=18)
    assert [s.stimulus_id for s in found] == sorted(s.stimulus_id for s in found)
    files = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert files == {s.file for s in found}
    truth = [s.is_synthetic for s in found]
    assert 0 < sum(truth[: len(truth) // 2]) < len(truth) // 2


def test_all_pictures_have_the_models_size_and_equally_many_bytes(real, tmp_path):
    build(real, tmp_path / "out")
    paths = list((tmp_path / "out").glob("*.png"))
    assert {picture_at(path).size for path in paths} == {(32, 32)}
    assert len({path.stat().st_size for path in paths}) == 1


def test_a_generated_picture_is_the_one_its_seed_draws(real, tmp_path):
    found = build(real, tmp_path / "out")
    for stimulus in found:
        if stimulus.is_synthetic:
            picture = picture_at(tmp_path / "out" / stimulus.file)
            expected = pixel_digest(drawn(stimulus.class_name, stimulus.seed))
            assert pixel_digest(picture) == stimulus.source_digest == expected
            assert stimulus.generator_digest == MODEL["digest"]


def test_practice_and_attention_pictures_are_pools_of_their_own(real, tmp_path):
    made = build_pools(real, tmp_path / "out", practice=2, attention=1)
    assert {pool: len(found) for pool, found in made.items()} == {
        "main": 12,
        "practice": 8,
        "attention": 4,
    }
    for pool in ("practice", "attention"):
        assert read_stimuli(tmp_path / "out" / pool) == made[pool]
    digests = [s.source_digest for found in made.values() for s in found]
    assert len(set(digests)) == len(digests)


def test_an_attention_check_is_a_real_cell_or_the_mixed_tiles_of_another(real, tmp_path):
    made = build_pools(real, tmp_path / "out", attention=1)["attention"]
    assert [s.generator_digest for s in made if s.is_synthetic] == ["tiles", "tiles"]

    def tiles(image):
        pixels = np.asarray(image).reshape(4, 8, 4, 8, 3).swapaxes(1, 2).reshape(16, -1)
        return sorted(tile.tobytes() for tile in pixels)

    whole = [
        tiles(framed(decode(path.read_bytes(), name=path.name), 32, crop_px=None))
        for path in real.glob("*/*")
    ]
    for stimulus in made:
        shown = picture_at(tmp_path / "out" / "attention" / stimulus.file)
        assert tiles(shown) in whole


def test_a_call_that_was_stopped_goes_on_with_what_was_drawn(real, tmp_path):
    class Stops(Service):
        def __call__(self, request):
            if sum(self.batches) >= 20:
                raise httpx.ConnectError("gone", request=request)
            return super().__call__(request)

    first, second = Stops(), Service()
    with pytest.raises(WebappError, match="cannot be reached"):
        build(real, tmp_path / "out", service=first, main=20)
    made = build(real, tmp_path / "out", service=second, main=20)
    assert sum(first.batches) + sum(second.batches) == 40
    assert made == build(real, tmp_path / "again", main=20)
    assert not (tmp_path / "out.draws").exists()


def test_pictures_of_another_model_are_not_taken_over(real, tmp_path):
    (tmp_path / "out.draws").mkdir()
    (tmp_path / "out.draws" / "model.txt").write_text("d" * 64)
    with pytest.raises(WebappError, match=r"pictures of another model, .*; delete it"):
        build(real, tmp_path / "out")


def test_a_copy_of_a_training_picture_is_left_out_and_the_next_seed_drawn(real, tmp_path):
    plain = build(real, tmp_path / "plain", class_names=["basophil"])
    (one, *_) = [s for s in plain if s.is_synthetic]
    copy = pixel_digest(picture_at(tmp_path / "plain" / one.file))
    made = build(
        real,
        tmp_path / "out",
        class_names=["basophil"],
        is_copy=lambda image: pixel_digest(image) == copy,
    )
    seeds = {s.seed for s in plain if s.is_synthetic}
    assert {s.seed for s in made if s.is_synthetic} == (seeds - {one.seed}) | {max(seeds) + 1}


def test_a_model_that_only_copies_is_refused(real, tmp_path):
    with pytest.raises(WebappError, match="near-copies of training pictures; this model repeats"):
        build(real, tmp_path / "out", is_copy=lambda image: True)


def test_another_size_resamples_both_kinds_from_the_models_size(real, tmp_path):
    found = build(real, tmp_path / "out", size=96)
    for stimulus in found:
        assert picture_at(tmp_path / "out" / stimulus.file).size == (96, 96)


def test_the_same_seed_makes_the_same_set(real, tmp_path):
    assert build(real, tmp_path / "a") == build(real, tmp_path / "b")
    assert build(real, tmp_path / "c", seed=2) != build(real, tmp_path / "d")


def test_more_pictures_than_one_request_allows_are_drawn_in_several(real, tmp_path):
    service = Service()
    build(real, tmp_path / "out", service=service, main=20)
    assert service.batches == [16, 4, 16, 4]


def test_a_packed_set_serves_as_well_as_a_folder(real, tmp_path):
    import zipfile

    rows = ["archive,file,class"]
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in sorted(real.glob("*/*.png")):
            archive.write(path, f"{path.parent.name}/{path.name}")
            rows.append(f"set.zip,{path.parent.name}/{path.name},{path.parent.name}")
    (tmp_path / "set.csv").write_text("\n".join(rows))
    assert len(build(tmp_path / "set.csv", tmp_path / "out")) == 12


def test_too_few_real_pictures_are_said_with_the_ways_out(real, tmp_path):
    with pytest.raises(WebappError, match=r"20 real pictures .* lower --per-class"):
        build(real, tmp_path / "out", main=21)


def test_a_class_that_the_model_does_not_know_is_refused(real, tmp_path):
    with pytest.raises(WebappError, match=r"knows no class 'martian', only basophil, monocyte"):
        build(real, tmp_path / "out", class_names=["martian"])


def test_a_folder_in_use_is_not_written_to(real, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").touch()
    with pytest.raises(WebappError, match="is not empty; give a new folder"):
        build(real, tmp_path / "out")


def test_the_same_real_picture_twice_is_refused(real, tmp_path):
    for number in range(20):
        (real / "basophil" / f"copy_{number}.png").write_bytes(
            (real / "basophil" / "real_0.png").read_bytes()
        )
    with pytest.raises(WebappError, match="is there twice, pixel by pixel"):
        build(real, tmp_path / "out", main=20)


@pytest.mark.parametrize("name", ["nothing", "nothing.csv"])
def test_a_source_without_pictures_says_what_is_needed(tmp_path, name):
    with pytest.raises(
        WebappError, match=r"one subfolder of pictures|not the table of a packed set"
    ):
        real_images(tmp_path / name)


def test_a_service_that_is_not_there_is_said_in_one_line():
    with (
        httpx.Client(base_url="http://127.0.0.1:9") as http,
        pytest.raises(WebappError, match=r"cannot be reached .* `bentoml serve`") as error,
    ):
        ServiceClient(http).model()
    assert "\n" not in str(error.value)


def test_a_slow_service_is_told_from_an_absent_one():
    def too_slow(request):
        raise httpx.ReadTimeout("", request=request)

    with pytest.raises(WebappError, match="took longer than"):
        client_of(too_slow).model()


def test_the_services_own_words_are_passed_on():
    def refuses(request):
        return httpx.Response(422, json={"title": "No", "detail": "class_name is unknown."})

    with pytest.raises(WebappError, match=r"refused /v1/models \(422\): class_name is unknown\."):
        client_of(refuses).model()


@pytest.mark.parametrize("reply", [{"text": "hello"}, {"json": {}}, {"json": {"models": [{}]}}])
def test_another_service_on_that_address_is_recognised(reply):
    with pytest.raises(WebappError, match="check that --service names Cytoverity's service"):
        client_of(lambda request: httpx.Response(200, **reply)).model()


def test_a_service_without_a_model_says_so():
    with pytest.raises(WebappError, match="runs no model"):
        client_of(lambda request: httpx.Response(200, json={"models": []})).model()
