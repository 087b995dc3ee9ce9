// The reader's side of a study, run once by gr.HTML with `element`.
// Every page comes from the server; what is kept here may be lost at any moment.
const RESEND_AFTER_MS = 2000;
const NO_REPLY_AFTER_MS = 10_000;
const LARGEST_ZOOM = 8;
const PAN_STEP = 0.1; // of the stage's side
const LEFT_AFTER_TRIALS = 3; // time left is told from so many on
const AWAY_MS = 120_000; // a trial that took longer says nothing about the reader's speed

const page = () => element.querySelector(".cy");
const is_on = (name) => page()?.dataset.page === name;
const all = (selector) => element.querySelectorAll(selector);
const words = () => JSON.parse(page()?.dataset.words || "{}");
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Talking to the server: one call at a time, again and again until it replies. The server does
// each call once however often it arrives, and the reply says where the study stands.

let is_busy = false;

function say_lost(is_lost) {
  const place = element.querySelector("[data-lost]");
  if (place) place.textContent = is_lost ? (words().lost ?? "…") : "";
}

async function send(name, detail = {}) {
  if (is_busy) return;
  is_busy = true;
  let reply = await call(name, detail);
  while (!reply) {
    say_lost(true);
    await wait(RESEND_AFTER_MS);
    reply = await call(name, detail);
  }
  is_busy = false;
  await show(reply);
}

async function call(name, detail) {
  try {
    const reply = await fetch(`/study/do/${name}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(detail),
      signal: AbortSignal.timeout(NO_REPLY_AFTER_MS),
    });
    if (reply.ok || reply.status === 401) return await reply.json();
  } catch {
    // away, asleep, or cut off in the middle of the reply
  }
  return null;
}

// Pictures are fetched once, the next trial's while the reader looks at this one. Their addresses
// work for nobody else and not again, so what is fetched is kept here.

const pictures = new Map(); // address -> promise of a blob's address

function picture(address) {
  if (!pictures.has(address)) pictures.set(address, fetch_picture(address));
  return pictures.get(address);
}

async function fetch_picture(address) {
  for (;;) {
    try {
      const reply = await fetch(address, { signal: AbortSignal.timeout(3 * NO_REPLY_AFTER_MS) });
      if (reply.ok) return URL.createObjectURL(await reply.blob());
      if (reply.status < 500) return null; // its time is over, or it was answered elsewhere
    } catch {
      // away; the next turn tries again
    }
    await wait(RESEND_AFTER_MS);
  }
}

async function forget_pictures(kept) {
  for (const [address, blob] of pictures) {
    if (kept.includes(address)) continue;
    pictures.delete(address);
    blob.then((url) => url && URL.revokeObjectURL(url));
  }
}

// Showing a page. A trial's page comes up when its pictures can be painted, not before.

let trial = null; // what is measured of the trial on the screen; null: no answer is taken
let chosen = null; // the answer of which only the confidence is missing
let shows_pixels = false;
let show_count = 0;

async function show({ html, page: name }) {
  trial = null;
  chosen = null;
  const mine = ++show_count;
  const fresh = document.createElement("template"); // its pictures are not loaded by themselves
  fresh.innerHTML = html;
  const root = fresh.content.firstElementChild;
  if (name === "feedback") return show_feedback(root);
  const addresses = [...root.querySelectorAll("img.cy-cell")].map((one) => one.getAttribute("src"));
  const slow = setTimeout(() => say_lost(true), RESEND_AFTER_MS);
  const has_all = root.dataset.exposure === "0.0" || (await load_pictures(root));
  clearTimeout(slow);
  if (!has_all || root.dataset.exposure === "0.0") {
    for (const image of root.querySelectorAll("img.cy-cell")) image.remove();
  }
  element.replaceChildren(root);
  document.documentElement.lang = root.lang;
  document.title = root.querySelector(".cy-title")?.textContent ?? document.title;
  window.scrollTo(0, 0);
  root.querySelector("h1").focus({ preventScroll: true });
  reset_view();
  if (name !== "trial") {
    forget_pictures([]);
    return;
  }
  forget_pictures([...addresses, ...next_addresses(root)]);
  mark_pixels();
  tell_time_left(root);
  if (!has_all) hint(words().gone);
  // Two frames: the first callback runs before the picture is painted, the second after it.
  else
    requestAnimationFrame(() =>
      requestAnimationFrame(() => {
        if (mine === show_count) start_trial(root);
      }),
    );
}

// Whether all came. The template's document loads nothing by itself, and decodes nothing.
async function load_pictures(root) {
  const images = [...root.querySelectorAll("img.cy-cell")];
  const urls = await Promise.all(images.map((one) => picture(one.getAttribute("src"))));
  if (urls.includes(null)) return false;
  images.forEach((image, number) => (image.src = urls[number]));
  document.adoptNode(root);
  await Promise.all(images.map((image) => image.decode()));
  return true;
}

const next_addresses = (root) => root.dataset.next.split(" ").filter(Boolean);

function show_feedback(panel) {
  if (!is_on("trial")) return send("show");
  element.querySelector(".cy-panel").replaceWith(panel);
  page().dataset.page = "feedback";
  panel.focus({ preventScroll: true }); // not its button: a key held since the answer would press it
  hint("");
  say_lost(false);
}

function hint(text) {
  const place = element.querySelector("[data-hint]");
  if (place) place.textContent = text;
}

// A trial

function start_trial(root) {
  trial = {
    painted_at: performance.now(),
    hidden_ms: 0,
    hidden_since: null,
    n_hidden: 0,
    n_zooms: 0,
    zoom_max: 1,
    input: "",
  };
  root.dataset.state = "ready";
  note_visibility();
  const { exposure } = root.dataset;
  if (exposure !== undefined) {
    setTimeout(() => end_exposure(root), Number(exposure) * 1000);
  }
  next_addresses(root).forEach(picture);
}

function end_exposure(root) {
  for (const image of root.querySelectorAll(".cy-stage img")) image.remove();
  root.dataset.exposure = "over";
  if (is_on("trial") && page() === root && trial && !chosen) hint(words().over);
}

function note_visibility() {
  if (!trial) return;
  const now = performance.now();
  if (document.visibilityState === "hidden") {
    if (trial.hidden_since === null) trial.n_hidden += 1;
    trial.hidden_since ??= now;
  } else if (trial.hidden_since !== null) {
    trial.hidden_ms += now - trial.hidden_since;
    trial.hidden_since = null;
  }
}

const screen_facts = () => ({
  screen_width: screen.width,
  screen_height: screen.height,
  view_width: innerWidth,
  view_height: innerHeight,
  pixel_ratio: devicePixelRatio,
});

function answer(response, confidence, input) {
  if (!trial) return;
  note_visibility();
  const response_time_s = (performance.now() - trial.painted_at) / 1000;
  const { hidden_ms, n_hidden, n_zooms, zoom_max } = trial;
  trial = null;
  note_pace(response_time_s);
  const given = confidence === null ? `[data-response="${response}"]` : `[data-confidence="${confidence}"]`;
  for (const button of all(`.cy-scale ${given}`)) {
    if ((button.dataset.response ?? response) === response) button.setAttribute("data-given", "");
  }
  send("answer", {
    presentation_token: page().dataset.presentation,
    response,
    confidence,
    response_time_s,
    client: {
      hidden_s: hidden_ms / 1000,
      n_hidden,
      n_zooms,
      zoom_max,
      input,
      stage_px: element.querySelector(".cy-stage").clientWidth,
      ...screen_facts(),
    },
  });
}

function choose(response) {
  chosen = response;
  for (const row of all("[data-row]")) {
    const is_it = row.dataset.row === response;
    row.toggleAttribute("data-chosen", is_it);
    if (row.hasAttribute("aria-pressed")) row.setAttribute("aria-pressed", String(is_it));
    if (is_it) {
      const points = page().dataset.confidencePoints;
      hint(words().sure.replace("{choice}", row.dataset.label).replace("{points}", points));
    }
  }
  if (response === null) hint("");
}

const ask_first = () => hint(words().first[page().dataset.design]);

function press_answer(button, input) {
  const { response, confidence } = button.dataset;
  const is_rating = page().dataset.design === "quality";
  if (is_rating) answer(response, null, input);
  else if (confidence === undefined) choose(response);
  else if (response ?? chosen) answer(response ?? chosen, Number(confidence), input);
  else ask_first();
}

function press_digit(digit) {
  const is_rating = page().dataset.design === "quality";
  const value = digit || 10;
  const button = element.querySelector(
    is_rating ? `[data-response="${value}"]` : `[data-confidence="${value}"]`,
  );
  if (!button) return false;
  if (is_rating) answer(String(value), null, "keyboard");
  else if (chosen) answer(chosen, value, "keyboard");
  else ask_first();
  return true;
}

// Time left, from the median of this visit's trials

let paces_s = [];

function note_pace(seconds) {
  if (seconds * 1000 < AWAY_MS) paces_s = [...paces_s, seconds].slice(-31);
}

function tell_time_left(root) {
  const { practice, trialNumber, nTrials } = root.dataset;
  if (practice !== undefined || paces_s.length < LEFT_AFTER_TRIALS) return;
  const median = [...paces_s].sort((a, b) => a - b)[Math.floor(paces_s.length / 2)];
  const minutes = Math.round((median * (nTrials - trialNumber + 1)) / 60);
  root.querySelector("[data-left]").textContent =
    minutes < 1 ? words().last_minute : words().minutes.replace("{minutes}", minutes);
}

// Zoom and pan, of both pictures of a pair together: the stage's left upper corner is at (x, y) of
// the picture, in sides of the stage.

let view = { scale: 1, x: 0, y: 0 };

function look({ scale, x, y }) {
  scale = Math.min(LARGEST_ZOOM, Math.max(1, scale));
  const most = 1 - 1 / scale;
  view = { scale, x: Math.min(most, Math.max(0, x)), y: Math.min(most, Math.max(0, y)) };
  for (const cell of all(".cy-cell")) {
    cell.style.transform = `scale(${scale}) translate(${-100 * view.x}%, ${-100 * view.y}%)`;
  }
  for (const stage of all(".cy-stage")) stage.toggleAttribute("data-zoomed", scale > 1);
  for (const place of all("[data-scale]")) place.textContent = `${Math.round(100 * scale)} %`;
  const measured = trial ?? calibration_view;
  measured.zoom_max = Math.max(measured.zoom_max, scale);
}

let calibration_view = { zoom_max: 1 };

function reset_view() {
  calibration_view = { zoom_max: 1 };
  look({ scale: 1, x: 0, y: 0 });
}

// `at`: the point of the stage that stays where it is, in sides of the stage.
function zoom(factor, at = { x: 0.5, y: 0.5 }) {
  if (trial) trial.n_zooms += 1;
  const scale = Math.min(LARGEST_ZOOM, Math.max(1, view.scale * factor));
  const shift = 1 / view.scale - 1 / scale;
  look({ scale, x: view.x + at.x * shift, y: view.y + at.y * shift });
}

const pan = (x, y) => look({ ...view, x: view.x + x / view.scale, y: view.y + y / view.scale });

const press_zoom = (how) =>
  how === "in" ? zoom(1.5) : how === "out" ? zoom(1 / 1.5) : look({ scale: 1, x: 0, y: 0 });

const fingers = new Map(); // pointer id -> where it is, in sides of the stage

function place_on(stage, event) {
  const box = stage.getBoundingClientRect();
  return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
}

element.addEventListener("pointerdown", (event) => {
  const stage = event.target.closest(".cy-stage");
  if (!stage) return;
  fingers.set(event.pointerId, place_on(stage, event));
  stage.setPointerCapture(event.pointerId);
});

element.addEventListener("pointermove", (event) => {
  const stage = event.target.closest(".cy-stage");
  const before = fingers.get(event.pointerId);
  if (!stage || !before) return;
  const now = place_on(stage, event);
  const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
  if (other) {
    const apart = (one) => Math.hypot(one.x - other.x, one.y - other.y);
    if (apart(before) > 0.02) zoom(apart(now) / apart(before), other);
  } else {
    pan(before.x - now.x, before.y - now.y);
  }
  fingers.set(event.pointerId, now);
});

for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
  element.addEventListener(end, (event) => fingers.delete(event.pointerId));
}

element.addEventListener(
  "wheel",
  (event) => {
    const stage = event.target.closest(".cy-stage");
    if (!stage) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 500), place_on(stage, event));
  },
  { passive: false },
);

function mark_pixels() {
  for (const cell of all("img.cy-cell")) cell.toggleAttribute("data-pixels", shows_pixels);
  element.querySelector("[data-pixels][aria-pressed]")?.setAttribute("aria-pressed", shows_pixels);
}

function toggle_pixels() {
  shows_pixels = !shows_pixels;
  mark_pixels();
}

function take_back() {
  if (!trial || !element.querySelector("[data-undo]")) return;
  trial = null;
  send("undo", { trial_number: Number(page().dataset.trialNumber) });
}

// What the reader presses

const show_help = () => element.querySelector(".cy-help")?.showModal();

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const { dataset } = button;
  if (dataset.send) send(dataset.send, dataset.language ? { language: dataset.language } : {});
  else if (dataset.zoom) press_zoom(dataset.zoom);
  else if ("help" in dataset) show_help();
  else if ("undo" in dataset) take_back();
  else if ("pixels" in dataset) toggle_pixels();
  else if (trial && ("response" in dataset || "confidence" in dataset))
    press_answer(button, event.pointerType || "keyboard");
});

element.addEventListener("submit", (event) => {
  const name = event.target.dataset.send;
  if (!name) return; // the help's own form
  event.preventDefault();
  const given = Object.fromEntries(new FormData(event.target));
  if (name === "calibration") {
    const gamut = ["rec2020", "p3", "srgb"].find((one) => matchMedia(`(color-gamut: ${one})`).matches);
    Object.assign(given, screen_facts(), { gamut: gamut ?? "", ...calibration_view });
  }
  send(name, given);
});

const ARROWS = { arrowleft: [-1, 0], arrowright: [1, 0], arrowup: [0, -1], arrowdown: [0, 1] };

// Whether the key did something.
function press_key(event) {
  const key = event.key.toLowerCase();
  // `code` as well: unshifted digit keys of a French keyboard type other characters.
  const digit = (/^(?:Digit|Numpad)(\d)$/.exec(event.code) ?? /^(\d)$/.exec(key))?.[1];
  if (key === "enter") {
    const button = element.querySelector("[data-enter]");
    if (!button || event.target.closest("button")) return false;
    button.click();
    return true;
  }
  if (!element.querySelector(".cy-tools")) return false;
  if (event.shiftKey && ARROWS[key]) {
    pan(...ARROWS[key].map((step) => step * PAN_STEP));
    return true;
  }
  if (key === "?") show_help();
  else if (digit !== undefined && trial && press_digit(Number(digit))) return true;
  else if (key === "+" || key === "=") press_zoom("in");
  else if (key === "-") press_zoom("out");
  else if (digit === "0") press_zoom("reset");
  else if (key === "x") toggle_pixels();
  else if (!trial) return false;
  else if (key === "u") take_back();
  else if (key === "escape") choose(null);
  else {
    const row = element.querySelector(`[data-key="${CSS.escape(key)}"]`);
    if (!row) return false;
    choose(row.dataset.row);
  }
  return true;
}

document.addEventListener("keydown", (event) => {
  // A held key would answer several trials.
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.target.closest?.("input, dialog")) return;
  if (press_key(event)) event.preventDefault();
});

document.addEventListener("visibilitychange", note_visibility);

send("show");
