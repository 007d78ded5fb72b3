// The studio: joins the parts.

import { BlendTools, blendOf } from "./blend.js";
import { button, download, html, mark, onFile, slug, why } from "./dom.js";
import { Easel } from "./easel.js";
import { Gallery } from "./gallery.js";
import { History } from "./history.js";
import { startKeys } from "./keys.js";
import { startJoin } from "./join.js";
import { Live } from "./live.js";
import { Loras } from "./loras.js";
import { Many } from "./many.js";
import { Meter } from "./meter.js";
import { Models } from "./models.js";
import { clearError, error, note, say } from "./notice.js";
import { Painter } from "./painter.js";
import { Panel } from "./panel.js";
import { decodePng, readSettings } from "./png.js";
import { PromptField } from "./prompt.js";
import { Rail } from "./rail.js";
import { Regions, regionsOf } from "./regions.js";
import { Replay } from "./replay.js";
import { SensitivityView } from "./sensitivity.js";
import { Sketch } from "./sketch.js";
import { DEFAULTS, fromLink, Store, toLink } from "./state.js";
import { Starters } from "./starters.js";
import { nextTheme, startTheme } from "./theme.js";
import { Variants } from "./variants.js";
import { startLog } from "./log.js";

/** @import { Frame, Hello, Request, Settings, View } from "./types.js" */
/** @import { Job, SentJob } from "./painter.js" */
/** @import { Sketched } from "./sketch.js" */

/** An outage shorter than this is not worth a word. */
const OUTAGE_MS = 700;
/** Browsers limit how often a page may rewrite its address. */
const ADDRESS_MS = 1000;

const store = new Store({ ...DEFAULTS, ...fromLink(location.hash) });
/** @type {View} */
let view = "words";
/** @type {Hello | null} */
let hello = null;
/** @type {Sketched | null} the sketch, as last sent */
let sketched = null;
/** @type {{settings: Settings, frame: Frame} | null} the newest finished picture */
let finished = null;
/** @type {number | null} when the key was pressed that the next message answers */
let key_ms = null;
/** @type {(() => void) | null} what waits for the next finished picture */
let whenFinished = null;
/** The server's last warning, so that it is said once. */
let warned = "";
/** @type {number | undefined} */
let outage;
/** @type {number | undefined} */
let addressTimer;

const live = new Live({
  opened: () => {
    painter.forget();
    meter.forget();
    models.restore();
    askAgain();
  },
  loading: (message) => models.loading(message),
  hello: (message) => {
    const other = models.show(message);
    hello = message;
    clearTimeout(outage);
    clearError("connection");
    setConnected(true);
    panel.setModel(message);
    loras.offer(message.model.loras, store.now);
    sketch.setControlNets(message.model.controlnets);
    starters.setModel(message.model);
    starters.show(store.now.prompt, DEFAULTS.prompt);
    variants.limit(message.limits.variants);
    field.limit(message.limits.prompt_chars);
    shapeChanged(store.now);
    if (other) modelChanged();
    // A server of another version may have been put in place of the one that served this page.
    if (message.protocol !== 1) error("The server speaks another version of the protocol.", "Reload the page.", { label: "Reload", run: () => location.reload() });
  },
  frame: (frame) => painter.receive(frame),
  sensitivity: (message) => painter.receiveWords(message),
  error: (message) => {
    if (message.rev === null) models.failed();
    if (!painter.fail(message)) return;
    sketch.answered();
    error(message.message, message.hint);
  },
  closed: ({ reason, code, retry_ms }) => {
    setConnected(false);
    const again = { label: "Try now", run: () => live.connect() };
    clearTimeout(outage);
    if (retry_ms === null) {
      return error(reason || "The server refused the connection.", "Open the address that prima serve printed, with its token.", again, "connection");
    }
    const said = [1011, 1013].includes(code) ? reason : "";
    const why = said || (code === 1013 ? "The server has too many sessions." : "The connection to prima is lost.");
    outage = setTimeout(() => error(why, "Trying again by itself. Is prima serve still running?", again, "connection"), OUTAGE_MS);
  },
});

const painter = new Painter(live);
const easel = new Easel();
const meter = new Meter();
const panel = new Panel(store, (prompts) => {
  setView("variants");
  variants.show({ title: `${prompts.length} styles`, prompts });
});
const blend = new BlendTools({
  settings: () => store.now,
  set: (patch) => store.set(patch, "control"),
  paint: async (settings) => (await paintToTheEnd({ ...paintRequest(settings), preview: false }, undefined)).blob,
  ended: () => {
    blend.show(store.now);
    askAgain();
  },
  failed: (message, hint) => error(message, hint),
});
const loras = new Loras((chosen) => store.set({ loras: chosen }, "control"));
const regions = new Regions((regions) => store.set({ regions }, "control"));
const models = new Models((name) => live.send({ type: "model", name }));
const log = startLog(painter, easel, decodePng);

const field = new PromptField((prompt, at) => {
  key_ms = at;
  store.set({ prompt }, "typing");
  key_ms = null;
});

const rail = new Rail({
  prompt: () => store.now.prompt,
  change: (prompt) => store.set({ prompt }, "control"),
  sideBySide: (word, prompts) => {
    setView("variants");
    variants.show({ title: `Other words for “${word}”`, prompts });
  },
});

const starters = new Starters(
  (prompt) => {
    if (view === "variants") setView("words");
    store.set({ prompt }, "control");
    if (!matchMedia("(pointer: coarse)").matches) field.focus();
  },
  () => store.now.prompt,
);

const sensitivity = new SensitivityView(field, (done, failed) => {
  const request = { ...paintRequest(store.now), type: /** @type {const} */ ("sensitivity") };
  return painter.send({ request, words: done, failed }) !== null;
});

const variants = new Variants(
  () => store.now,
  (fields, frame) => painter.send({ request: { ...paintRequest(store.now), type: "variants", preview: false, ...fields }, frame }),
  (patch) => {
    store.set(patch, "restore");
    setView("words");
    field.focus();
  },
);

const sketch = new Sketch(
  () => easel.shown?.bitmap ?? null,
  (next) => {
    sketched = next;
    if (next && view === "sketch") askAgain();
  },
  (message) => error(message),
);

/** @param {Settings} settings of a picture that was there before */
function restore(settings) {
  if (view === "variants") setView("words");
  store.set(settings, "restore");
}

const past = new History(restore, (settings, blob) => void gallery.keep(settings, blob, hello?.model.name ?? ""));

const gallery = new Gallery(restore, (message, hint) => error(message, hint));

const replay = new Replay({
  model: () => (hello ? `${hello.model.name} (prima ${hello.version})` : ""),
  paint: paintToTheEnd,
  prompt: (prompt) => (field.text = prompt),
  ended: () => {
    field.text = store.now.prompt;
    askAgain();
  },
  failed: (message, hint) => error(message, hint),
});

/**
 * @param {Settings} settings
 * @returns {Request}
 */
function paintRequest(settings) {
  /** @type {Request} */
  const request = { type: "paint", prompt: settings.prompt, seed: settings.seed, format: "png" };
  if (settings.steps !== null) request.steps = settings.steps;
  if (settings.width !== null) Object.assign(request, { width: settings.width, height: settings.height });
  const wanted = Object.entries(settings.loras).map(([name, weight]) => ({ name, weight }));
  if (wanted.length > 0) request.loras = wanted;
  const way = blendOf(settings);
  if (way) request.blend = way;
  const parts = regionsOf(settings.regions);
  if (parts) request.regions = parts;
  if (hello?.model.uses_guidance) {
    if (settings.guidance_scale !== null) request.guidance_scale = settings.guidance_scale;
    if (settings.negative_prompt) request.negative_prompt = settings.negative_prompt;
  }
  return request;
}

/** @returns {Job | null} the picture of the present settings */
function paintJob() {
  const settings = store.now;
  // A model that is asked for nothing paints something all the same.
  easel.setFresh(settings.prompt.trim() !== "" || view === "sketch");
  if (settings.prompt.trim() === "" && view === "words") {
    easel.describe("No picture: there are no words");
    painter.cancel();
    return null;
  }
  const request = paintRequest(settings);
  /** @type {Job} */
  const job = { request, frame: (frame, sent) => received(frame, sent, settings) };
  if (view !== "sketch" || !sketched) return job;
  if (settings.strength !== null) request.strength = settings.strength;
  Object.assign(request, sketched.fields);
  return { ...job, image: sketched.files };
}

/**
 * @param {Frame} frame
 * @param {SentJob} job
 * @param {Settings} settings
 */
function received(frame, job, settings) {
  clearError("request");
  void easel.show(frame, job);
  sketch.answered();
  if (!frame.header.final || frame.header.rev !== painter.rev) return;
  finished = { settings, frame };
  whenFinished?.();
  whenFinished = null;
  if (replay.playing || (view === "sketch" && sketch.moving)) return;
  past.finished(settings, frame.blob);
  const warnings = frame.header.warnings?.join(" ") ?? "";
  if (warnings && warnings !== warned) note(warnings);
  warned = warnings;
  say(`Painted: ${settings.prompt || "no words"}`);
  clearTimeout(addressTimer);
  addressTimer = setTimeout(() => history.replaceState(null, "", `${location.search}#${toLink(store.now)}`), ADDRESS_MS);
}

/** Asks for the present picture at the next animation frame. */
function askAgain() {
  if (replay.playing || blend.running) return;
  if (view === "variants") return variants.refresh(0);
  finished = null;
  painter.ask(paintJob, key_ms);
}

/**
 * Paints a request to its end, whatever the page's settings are: for the replay.
 * @param {Request} request
 * @param {Uint8Array | undefined} image
 * @returns {Promise<Frame>}
 */
function paintToTheEnd(request, image) {
  return new Promise((resolve, reject) => {
    /**
     * @param {Frame} found
     * @param {SentJob} job
     */
    const frame = (found, job) => {
      void easel.show(found, job);
      if (found.header.final) resolve(found);
    };
    const failed = (/** @type {{message: string}} */ { message }) => reject(new Error(message));
    const rev = painter.send({ request, frame, failed, ...(image && { image }) });
    if (rev === null) reject(new Error("There is no connection to the server."));
  });
}

painter.onSent((job) => {
  if (job.key_ms !== null) meter.key(job.rev, job.key_ms);
  replay.sent(job);
});
painter.onFrame((_, frame) => replay.received(frame));

easel.onPainted(({ job, frame, decoded_ms, painted_ms }) => {
  const { header } = frame;
  easel.describe(`Picture of ${job?.request.prompt || "no words"}, seed ${header.seed}`);
  html("plate").textContent = `${header.width} × ${header.height}, seed ${header.seed}, ${header.steps} ${header.steps === 1 ? "step" : "steps"}`;
  sketch.pictureChanged();
  if (job) meter.painted({ header, key_ms: job.key_ms, sent_ms: job.sent_ms, arrived_ms: frame.at, decoded_ms, painted_ms });
});

store.onChange((settings, cause) => {
  if (cause !== "typing") field.text = settings.prompt;
  if (replay.playing) replay.stop();
  if (blend.running) blend.stop();
  past.touch();
  panel.show(settings);
  loras.show(settings);
  blend.show(settings);
  regions.show(settings.regions);
  rail.refresh();
  starters.show(settings.prompt, DEFAULTS.prompt);
  sensitivity.clear();
  shapeChanged(settings);
  if (view === "variants") variants.edited();
  else askAgain();
});

/** @param {Settings} settings */
function shapeChanged({ width, height }) {
  const [w, h] = [width ?? hello?.model.width ?? 128, height ?? hello?.model.height ?? 128];
  sketch.setShape(w, h);
  easel.setShape(w, h);
}

/** What was set for the model before is not what this one paints well. */
function modelChanged() {
  clearError("request");
  const own = { steps: null, guidance_scale: null, width: null, height: null, strength: null, loras: {} };
  const before = store.now;
  store.set(own, "control");
  if (store.now === before) askAgain();
}

/** @param {View} next */
function setView(next) {
  if (view === next) return;
  view = next;
  document.documentElement.dataset.view = next;
  html("pad-pane").hidden = html("pad-tools").hidden = next !== "sketch";
  html("variants").hidden = html("variants-tools").hidden = next !== "variants";
  for (const tab of document.querySelectorAll("[data-view-to]")) mark(tab, "aria-pressed", tab.getAttribute("data-view-to") === next);
  panel.sheet(false);
  sensitivity.clear();
  if (next === "sketch") sketch.start();
  else sketch.stop();
  if (next === "variants") variants.show(null);
  else {
    variants.stop();
    if (next === "words") askAgain();
  }
}

/** @param {boolean} on */
function setConnected(on) {
  button("pulse").dataset.state = on ? "on" : "off";
  if (!on) html("pulse-text").textContent = "reconnecting";
  else if (!easel.shown) html("pulse-text").textContent = "ready";
  easel.setFresh(on);
}

/** @param {(picture: {settings: Settings, frame: Frame}) => void} use once the newest picture is finished */
function withFinished(use) {
  const now = () => finished && use(finished);
  if (finished) now();
  else {
    whenFinished = now;
    if (view === "variants") setView("words");
  }
}

function save() {
  withFinished(({ settings, frame }) => {
    const name = `${slug(settings.prompt)}-${settings.seed}.png`;
    download(frame.blob, name);
    note(`Saved ${name}`);
  });
}

async function copyLink() {
  const url = new URL(location.pathname, location.origin);
  url.hash = toLink(store.now);
  const lacks = view === "sketch" ? "; the sketch itself is not in it" : "";
  try {
    await navigator.clipboard.writeText(url.href);
    note(`Link copied${lacks}`);
  } catch {
    history.replaceState(null, "", `${location.search}#${toLink(store.now)}`);
    note(`The link is in the address bar${lacks}`);
  }
}

/**
 * A picture that says nothing of its making is one to paint over.
 * @param {File} file
 */
async function openPicture(file) {
  if (file.type === "image/png" && (await readSettings(file).catch(() => null))) return openPng(file);
  setView("sketch");
  await sketch.putImage(file);
}

/** @param {File} file */
async function openPng(file) {
  try {
    const settings = loras.untagged(await readSettings(file));
    if (view !== "words") setView("words");
    store.set({ ...DEFAULTS, ...settings }, "restore");
    panel.sheet(false);
    note("Settings restored from the picture");
  } catch (reason) {
    error("This picture has no settings to restore.", why(reason));
  }
}

/** @param {DataTransfer} data */
function dropped(data) {
  const file = data.files[0];
  if (file) take(file);
}

/** @param {File} file dropped or pasted */
function take(file) {
  if (file.type === "application/json" || file.name.endsWith(".json")) void replay.load(file);
  else if (view === "sketch") void sketch.putImage(file);
  else if (file.type.startsWith("image/")) void openPicture(file);
  else error(`${file.name} is no picture.`, "Give a PNG, JPEG or WebP, or a recording of this page.");
}

function startDrops() {
  addEventListener("paste", (event) => {
    const file = event.clipboardData?.files[0];
    if (!file || gallery.isOpen) return;
    event.preventDefault();
    take(file);
  });
  const veil = html("drop");
  addEventListener("dragover", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    veil.querySelector("p")?.replaceChildren(view === "sketch" ? "Drop an image to paint over it" : "Drop a picture: prima's own brings its settings back, any other is painted over");
    veil.hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) veil.hidden = true;
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    veil.hidden = true;
    if (event.dataTransfer) dropped(event.dataTransfer);
  });
}

function start() {
  startTheme();
  startJoin();
  field.text = store.now.prompt;
  panel.show(store.now);
  blend.show(store.now);
  regions.show(store.now.regions);
  for (const tab of document.querySelectorAll("[data-view-to]")) {
    tab.addEventListener("click", () => setView(/** @type {View} */ (tab.getAttribute("data-view-to"))));
  }
  button("save").addEventListener("click", save);
  button("link").addEventListener("click", () => void copyLink());
  button("open").addEventListener("click", onFile("open-file", (file) => void openPng(file)));
  button("pulse").addEventListener("click", () => {
    panel.sheet(true);
    html("meter").scrollIntoView({ block: "nearest" });
  });
  addEventListener("hashchange", () => store.set({ ...DEFAULTS, ...fromLink(location.hash) }, "restore"));
  new Many({
    order: () => {
      const job = paintJob();
      return job && { settings: store.now, request: job.request, image: job.image, model: hello?.chosen ?? "" };
    },
    keep: (settings, blob) => gallery.keep(settings, blob, hello?.model.name ?? ""),
    failed: (message, hint) => error(message, hint),
  });
  startDrops();
  startKeys(
    [
      { key: "/", says: "to the prompt", run: () => field.focus() },
      { key: "r", says: "another seed", run: () => panel.anotherSeed() },
      { key: "l", says: "keep or free the seed", run: () => panel.toggleLock() },
      { key: "1", says: "words", run: () => setView("words") },
      { key: "2", says: "sketch", run: () => setView("sketch") },
      { key: "3", says: "variants", run: () => setView("variants") },
      { key: "w", says: "which words matter", run: () => sensitivity.toggle() },
      { key: "e", says: "weigh and swap words", run: () => rail.toggle() },
      { key: "i", says: "ideas: what the model knows", run: () => starters.open() },
      { key: "g", says: "gallery", run: () => void gallery.show() },
      { key: "z", says: "undo", run: undo },
      { key: "y", says: "redo", run: () => past.step(1) },
      { key: "s", says: "save PNG", run: save },
      { key: "c", says: "copy link", run: () => void copyLink() },
      { key: "t", says: "theme", run: () => note(`Theme: ${nextTheme()}`) },
    ],
    {
      says: [
        ["Ctrl Enter", "another seed, while writing"],
        ["Enter", "another seed, if it is free"],
        ["← →", "through the filmstrip"],
      ],
      anotherSeed: () => panel.anotherSeed(),
      enter: () => {
        if (!panel.locked) return panel.anotherSeed();
        if (matchMedia("(pointer: coarse)").matches) field.element.blur();
        note(`Seed ${store.now.seed} is kept: Ctrl Enter or the dice takes another`);
        askAgain();
      },
      undo,
      redo: () => past.step(1),
    },
  );
  setInterval(() => {
    html("fps").hidden = view !== "sketch";
    html("fps").textContent = sketch.still ? "unchanged" : `${meter.fps().toFixed(1)} a second`;
  }, 500);
  live.connect();
  // On a phone the keyboard would cover the picture that the visitor has not seen yet.
  if (!matchMedia("(pointer: coarse)").matches) field.focus();
}

function undo() {
  if (view === "sketch") sketch.undo();
  else past.step(-1);
}

Object.defineProperty(window, "prima", { value: log });
start();
