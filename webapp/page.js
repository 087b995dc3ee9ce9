// The reader's side of a study, run once by gr.HTML with `element`, `trigger` and `watch`.
// Every page comes from the server; what is kept here may be lost at any moment.
const RESEND_AFTER_MS = 5000;

let painted_at = null; // performance.now() when the cell could be seen; null: no answer is taken
let chosen = null; // "real" or "generated", after its letter key
let resend = null;
let shows_pixels = false;

const page = () => element.querySelector("[data-page]");
const is_trial = () => page()?.dataset.page === "trial";

function hint(text) {
  const place = element.querySelector("[data-hint]");
  if (place) place.textContent = text;
}

function show_page() {
  const root = page();
  if (!root) return;
  clearInterval(resend);
  element.querySelector("[data-lost]").textContent = "";
  painted_at = null;
  chosen = null;
  window.scrollTo(0, 0);
  root.querySelector("h1").focus({ preventScroll: true });
  if (is_trial()) show_cell(root);
}

async function show_cell(root) {
  const token = root.dataset.presentation;
  const image = root.querySelector(".cy-cell");
  mark_pixels();
  try {
    await image.decode();
  } catch {
    if (root.dataset.presentation !== token) return;
    hint("The picture did not arrive. Reload the page to try again; nothing is lost.");
    return;
  }
  if (root.dataset.presentation !== token) return;
  root.dataset.state = "shown";
  // Two frames: the first callback runs before the picture is painted, the second after it.
  requestAnimationFrame(() =>
    requestAnimationFrame(() => {
      if (root.dataset.presentation !== token) return;
      painted_at = performance.now();
      root.dataset.state = "ready";
    }),
  );
}

function send(name, detail) {
  trigger(name, detail);
  clearInterval(resend);
  resend = setInterval(() => send_again(name, detail), RESEND_AFTER_MS);
}

// After a lost connection Gradio sends nothing more, so this goes past it. The server stores an
// answer once however often it arrives, and a reload shows where the study stands.
async function send_again(name, detail) {
  element.querySelector("[data-lost]").textContent =
    "The server does not reply. Trying again; please leave this page open.";
  const { id } = window.gradio_config.dependencies.find((call) => call.api_name === name);
  try {
    const reply = await fetch("/study/gradio_api/run/predict", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ data: [], event_data: detail, fn_index: id }),
    });
    if (reply.ok || reply.status === 401) location.reload();
  } catch {
    // still away; the next turn tries again
  }
}

function answer(response, confidence) {
  if (painted_at === null) return;
  const response_time_s = (performance.now() - painted_at) / 1000;
  painted_at = null;
  page().dataset.state = "sent";
  element
    .querySelector(`[data-response="${response}"][data-confidence="${confidence}"]`)
    .setAttribute("data-given", "");
  send("answer", {
    presentation_token: page().dataset.presentation,
    response,
    confidence,
    response_time_s,
  });
}

function choose(response) {
  chosen = response;
  for (const row of element.querySelectorAll("[data-row]")) {
    row.toggleAttribute("data-chosen", row.dataset.row === response);
  }
  const points = page().dataset.confidencePoints;
  hint(response ? `${response === "real" ? "Real" : "Generated"}: how sure, 1 to ${points}?` : "");
}

function mark_pixels() {
  element.querySelector(".cy-cell").toggleAttribute("data-pixels", shows_pixels);
  element
    .querySelector('[data-toggle="pixels"]')
    .setAttribute("aria-pressed", String(shows_pixels));
}

function toggle_pixels() {
  shows_pixels = !shows_pixels;
  mark_pixels();
}

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.response) answer(button.dataset.response, Number(button.dataset.confidence));
  if (button.dataset.toggle) toggle_pixels();
  if (button.dataset.send && !button.disabled) {
    button.disabled = true;
    send(button.dataset.send === "consent" ? "consent" : "begin", {});
  }
});

document.addEventListener("keydown", (event) => {
  // A held key would answer several trials.
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || !is_trial()) return;
  const key = event.key.toLowerCase();
  // `code` as well: unshifted digit keys of a French keyboard type other characters.
  const digit = (/^(?:Digit|Numpad)(\d)$/.exec(event.code) ?? /^(\d)$/.exec(key))?.[1];
  if (key === "p") toggle_pixels();
  if (painted_at === null) return;
  if (key === "r") choose("real");
  else if (key === "g") choose("generated");
  else if (key === "escape") choose(null);
  else if (digit !== undefined) {
    const confidence = Number(digit) || 10;
    if (confidence > Number(page().dataset.confidencePoints)) return;
    if (chosen) answer(chosen, confidence);
    else hint("First R for real or G for generated, then the number.");
  } else return;
  event.preventDefault();
});

watch("value", show_page);
show_page();
