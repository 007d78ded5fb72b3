// The sketch pad, in layers: colours over a ground (a colour, an image, the camera or the screen), which are painted over; a mask,
// below which the shown picture is painted anew; lines, by which a ControlNet steers.
// Whenever it changes, and the picture before has come back, it is sent.

import { button, canvas, context2d, html, input, make, mark, onFile, style, why } from "./dom.js";
import { Capture } from "./capture.js";
import { Steady } from "./steady.js";
import { Strokes } from "./strokes.js";

/** @import { Source } from "./capture.js" */
/** @import { Stroke } from "./strokes.js" */

/** @typedef {"colours" | "mask" | "lines"} Layer */
/** The files of a message, one behind the other, and what its header says of them. */
/** @typedef {{files: Uint8Array, fields: Record<string, unknown>}} Sketched */

const COLOURS = ["#1d1d1f", "#ffffff", "#e0322b", "#f08a24", "#f6cf3a", "#3fa34d", "#2f6fde", "#7c4bc9", "#f29bb7", "#8a5a34", "#9bd0f0"];
const PAD_PX = 512;
/** Seen nowhere: the mask shows as stripes. */
const MASK_COLOUR = "#ffffff";
const LINE_COLOUR = "#1d1d1f";
/** Lines are thinner than what covers. */
const LINE_SHARE = 0.25;
/** Above this a PNG takes the browser longer to write than the network to paint. */
const MOST_PNG_PX = 320 * 320;
/** A picture that has not come back by then is no longer waited for. */
const PATIENCE_MS = 1500;

export class Sketch {
  #pad = canvas("pad");
  #colours = new Strokes(PAD_PX);
  #mask = new Strokes(PAD_PX);
  #lines = new Strokes(PAD_PX);
  /** @type {Layer} */
  #layer = "colours";
  /** What is below the mask; null: the picture that is shown. */
  /** @type {OffscreenCanvas | null} */
  #base = null;
  /** The ControlNet that reads lines. */
  /** @type {string | null} */
  #controlnet = null;
  /** @type {Stroke | null} */
  #current = null;
  #colour = COLOURS[2] ?? "#000000";
  #erase = false;
  /** @type {{colour: string, image: ImageBitmap | null}} */
  #ground = { colour: "#ffffff", image: null };
  #capture = new Capture(() => this.#stopCapture());
  #steady = new Steady();
  #on = false;
  #dirty = false;
  #waiting_since = 0;
  #encoding = false;
  #shape = { width: 128, height: 128 };
  #shown;
  #changed;
  #failed;

  /**
   * @param {() => ImageBitmap | null} shown the picture that is shown
   * @param {(sketched: Sketched | null) => void} changed with the pad at the picture's size; null where it asks for nothing
   * @param {(message: string) => void} failed
   */
  constructor(shown, changed, failed) {
    this.#shown = shown;
    this.#changed = changed;
    this.#failed = failed;
    this.#swatches();
    this.#pointer();
    for (const choice of layerChoices()) choice.addEventListener("click", () => this.#choose(/** @type {Layer} */ (choice.dataset.layer)));
    button("mask-invert").addEventListener("click", () => {
      this.#takeBase();
      this.#mask.invert(MASK_COLOUR);
      this.#compose();
    });
    button("eraser").addEventListener("click", () => this.#setErase(!this.#erase));
    button("pad-undo").addEventListener("click", () => this.undo());
    button("pad-clear").addEventListener("click", () => this.clear());
    button("pad-fill").addEventListener("click", () => this.#setGround({ colour: this.#colour, image: null }));
    button("pad-camera").addEventListener("click", () => this.#toggleCapture("camera"));
    button("pad-screen").addEventListener("click", () => this.#toggleCapture("screen"));
    input("steady").addEventListener("input", () => (this.#steady.share = input("steady").valueAsNumber));
    const pick = onFile("pad-file", (file) => void this.putImage(file));
    button("pad-image").addEventListener("click", pick);
    this.#compose();
  }

  get moving() {
    return this.#capture.source !== null;
  }

  /** Whether what moves stands still just now. */
  get still() {
    return this.moving && this.#steady.still;
  }

  start() {
    this.#on = true;
    this.#dirty = true;
    this.#pump();
  }

  stop() {
    this.#on = false;
    this.#stopCapture();
  }

  /** A picture came back: the next may go. */
  answered() {
    this.#waiting_since = 0;
  }

  /** Another picture is shown. */
  pictureChanged() {
    if (this.#layer === "mask" && !this.#base) this.#draw();
  }

  /** @param {string[]} names ControlNets of the model */
  setControlNets(names) {
    this.#controlnet = forLines(names);
    for (const choice of layerChoices()) if (choice.dataset.layer === "lines") choice.hidden = !this.#controlnet;
    if (this.#layer === "lines" && !this.#controlnet) this.#choose("colours");
  }

  /** @param {Layer} layer */
  #choose(layer) {
    this.#layer = layer;
    for (const choice of layerChoices()) mark(choice, "aria-checked", choice.dataset.layer === layer);
    for (const part of document.querySelectorAll("[data-of]")) {
      if (part instanceof HTMLElement) part.hidden = !part.dataset.of?.split(" ").includes(layer);
    }
    if (layer !== "colours") this.#stopCapture();
    this.#setErase(false);
    this.#compose();
  }

  get #strokes() {
    return { colours: this.#colours, mask: this.#mask, lines: this.#lines }[this.#layer];
  }

  /**
   * @param {number} width of the picture
   * @param {number} height
   */
  setShape(width, height) {
    if (width === this.#shape.width && height === this.#shape.height) return;
    this.#shape = { width, height };
    const scale = Math.max(1, Math.round(PAD_PX / Math.max(width, height)));
    this.#pad.width = width * scale;
    this.#pad.height = height * scale;
    for (const strokes of [this.#colours, this.#mask, this.#lines]) strokes.resize(width * scale, height * scale);
    this.#compose();
  }

  undo() {
    const undone = this.#strokes.undo();
    if (!undone && this.#layer === "colours") this.#setGround({ colour: "#ffffff", image: null });
    else this.#compose();
  }

  clear() {
    this.#strokes.clear();
    if (this.#layer === "mask") this.#base = null;
    if (this.#layer !== "colours") return this.#compose();
    this.#stopCapture();
    this.#setGround({ colour: "#ffffff", image: null });
  }

  /** @param {Blob} file */
  async putImage(file) {
    try {
      const image = await createImageBitmap(file);
      if (this.#layer !== "mask") return this.#setGround({ colour: "#ffffff", image });
      this.#base = this.#copied(image);
      image.close();
      this.#compose();
    } catch {
      this.#failed("This file is not an image that the browser can read. Use a PNG, JPEG or WebP file.");
    }
  }

  /** @param {{colour: string, image: ImageBitmap | null}} ground */
  #setGround(ground) {
    this.#ground.image?.close();
    this.#ground = ground;
    this.#compose();
  }

  /** @param {ImageBitmap} image */
  #copied(image) {
    const copy = new OffscreenCanvas(image.width, image.height);
    context2d(copy).drawImage(image, 0, 0);
    return copy;
  }

  /** What is masked from now on stays below the mask. */
  #takeBase() {
    const shown = this.#shown();
    if (this.#layer === "mask" && shown) this.#base ??= this.#copied(shown);
  }

  #swatches() {
    const box = html("swatches");
    for (const colour of COLOURS) {
      const choice = make("button", { type: "button", role: "radio", "aria-label": colour, "aria-checked": colour === this.#colour });
      style(choice, { swatch: colour });
      choice.addEventListener("click", () => this.#setColour(colour));
      box.append(choice);
    }
    const own = make("input", { type: "color", value: "#e86f52", "aria-label": "Own colour", title: "Own colour" });
    own.addEventListener("input", () => this.#setColour(own.value));
    box.append(own);
  }

  /** @param {string} colour */
  #setColour(colour) {
    this.#colour = colour;
    this.#setErase(false);
    for (const choice of html("swatches").querySelectorAll("button")) {
      mark(choice, "aria-checked", choice.getAttribute("aria-label") === colour);
    }
  }

  /** @param {boolean} erase */
  #setErase(erase) {
    this.#erase = erase;
    mark(button("eraser"), "aria-pressed", erase);
  }

  #pointer() {
    const pad = this.#pad;
    pad.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      pad.setPointerCapture(event.pointerId);
      this.#takeBase();
      const colour = { colours: this.#colour, mask: MASK_COLOUR, lines: LINE_COLOUR }[this.#layer];
      const share = this.#layer === "lines" && !this.#erase ? LINE_SHARE : 1;
      const size = (share * input("brush").valueAsNumber) / PAD_PX;
      this.#current = { colour, size, erase: this.#erase, points: [] };
      this.#strokes.begin(this.#current);
      this.#extend(event);
    });
    pad.addEventListener("pointermove", (event) => {
      if (!this.#current) return;
      for (const part of event.getCoalescedEvents?.() ?? [event]) this.#extend(part);
    });
    for (const end of ["pointerup", "pointercancel"]) pad.addEventListener(end, () => (this.#current = null));
  }

  /** @param {PointerEvent} event */
  #extend(event) {
    if (!this.#current) return;
    const box = this.#pad.getBoundingClientRect();
    const pressure = event.pointerType === "pen" ? 0.3 + 1.1 * event.pressure : 1;
    this.#strokes.extend(this.#current, [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.width, pressure]);
    this.#compose();
  }

  #compose() {
    this.#draw();
    this.#dirty = true;
    this.#pump();
  }

  /** Shows the layers, the chosen one above the others. */
  #draw() {
    const context = context2d(this.#pad);
    const { width, height } = this.#pad;
    if (this.#layer === "mask") this.#drawBase(context, width, height);
    else this.#drawColours(context, width, height);
    if (this.#layer === "lines") {
      context.globalAlpha = 0.6;
      context.fillStyle = "#ffffff";
      context.fillRect(0, 0, width, height);
      context.globalAlpha = 1;
    }
    context.globalAlpha = this.#layer === "lines" ? 1 : 0.3;
    if (this.#layer !== "mask") context.drawImage(this.#lines.surface, 0, 0);
    context.globalAlpha = 0.6;
    if (this.#layer === "mask") context.drawImage(this.#mask.flat(stripes(), "transparent", width, height), 0, 0);
    context.globalAlpha = 1;
  }

  /**
   * @param {CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D} context
   * @param {number} width
   * @param {number} height
   */
  #drawColours(context, width, height) {
    context.fillStyle = this.#ground.colour;
    context.fillRect(0, 0, width, height);
    if (this.#ground.image) cover(context, this.#ground.image, width, height);
    if (this.moving) this.#capture.draw(context, width, height);
    context.drawImage(this.#colours.surface, 0, 0, width, height);
  }

  /**
   * @param {CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D} context
   * @param {number} width
   * @param {number} height
   */
  #drawBase(context, width, height) {
    context.fillStyle = "#ffffff";
    context.fillRect(0, 0, width, height);
    const base = this.#base ?? this.#shown();
    if (base) cover(context, base, width, height);
  }

  /** Sends the pad if it has changed and nothing is on its way. */
  #pump() {
    if (!this.#on || !this.#dirty || this.#encoding) return;
    const waited = performance.now() - this.#waiting_since;
    if (this.#waiting_since && waited < PATIENCE_MS) return void setTimeout(() => this.#pump(), 8);
    this.#dirty = false;
    this.#encoding = true;
    void this.#encode().then((sketched) => {
      this.#encoding = false;
      if (!this.#on || sketched === undefined) return;
      if (sketched) this.#waiting_since = performance.now();
      this.#changed(sketched);
      this.#pump();
    });
  }

  /** @returns {Promise<Sketched | null | undefined>} undefined: the frame that was sent last */
  async #encode() {
    const { width, height } = this.#shape;
    const masked = this.#layer === "mask";
    const mask = masked ? this.#mask.flat("#ffffff", "#000000", width, height) : null;
    // Strokes that were rubbed out leave traces that mask nothing.
    if (mask && !context2d(mask).getImageData(0, 0, width, height).data.some((value, i) => i % 4 === 0 && value >= 128)) return null;
    const steers = this.#controlnet !== null && !this.#lines.isEmpty;
    const ground = this.#ground.image !== null || this.#ground.colour !== "#ffffff" || this.moving;
    const small = masked || !steers || ground || !this.#colours.isEmpty ? new OffscreenCanvas(width, height) : null;
    if (small) {
      const context = context2d(small);
      context.imageSmoothingQuality = "high";
      if (masked) this.#drawBase(context, width, height);
      else this.#drawColours(context, width, height);
    }
    if (small && this.moving) {
      if (!this.#steady.isOther(small)) return undefined;
      this.#steady.lay(context2d(small), this.#shown());
    }
    const lines = steers ? this.#lines.flat("#ffffff", "#000000", width, height) : null;
    const large = width * height > MOST_PNG_PX;
    const image = await encoded(small, large ? "image/jpeg" : "image/png");
    if (!mask && !lines) return { files: image, fields: {} };
    const rest = [await encoded(mask, "image/png"), await encoded(lines, "image/png")];
    const layers = { image: image.length, mask: rest[0]?.length ?? 0, control: rest[1]?.length ?? 0 };
    const files = new Uint8Array(await new Blob([image, ...rest]).arrayBuffer());
    return { files, fields: { layers, ...(lines && { control: { name: this.#controlnet } }) } };
  }

  /** @param {Source} source */
  async #toggleCapture(source) {
    if (this.#capture.source === source) return this.#stopCapture();
    try {
      await this.#capture.start(source);
      this.#steady.forget();
      this.#showCapture();
      this.#roll();
    } catch (error) {
      this.#stopCapture();
      this.#failed(why(error));
    }
  }

  #roll() {
    if (!this.moving) return;
    this.#compose();
    requestAnimationFrame(() => this.#roll());
  }

  #stopCapture() {
    this.#capture.stop();
    this.#showCapture();
  }

  #showCapture() {
    mark(button("pad-camera"), "aria-pressed", this.#capture.source === "camera");
    mark(button("pad-screen"), "aria-pressed", this.#capture.source === "screen");
    html("steady-tool").hidden = !this.moving;
  }
}

const layerChoices = () => /** @type {HTMLElement[]} */ ([...document.querySelectorAll("[data-layer]")]);

/** Dark and light, so that they show on any picture. */
function stripes() {
  const side = 12;
  const tile = new OffscreenCanvas(side, side);
  const context = context2d(tile);
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, side, side);
  context.strokeStyle = "#1d1d1f";
  context.lineWidth = side / 2.8;
  for (const at of [-side, 0, side]) {
    context.beginPath();
    context.moveTo(at - side / 2, side * 1.5);
    context.lineTo(at + side * 1.5, -side / 2);
    context.stroke();
  }
  return context.createPattern(tile, "repeat") ?? "#1d1d1f";
}

/**
 * The ControlNet that reads drawn lines, by its name: those for scribbles first, and none that reads something else.
 * @param {string[]} names
 */
export function forLines(names) {
  const first = (/** @type {RegExp} */ known) => names.find((name) => known.test(name));
  const other = /depth|normal|pose|seg|tile|blur|inpaint|shuffle|recolor|bright|qr|ip-?adapter/i;
  return first(/scribble|sketch|draw/i) ?? first(/line|canny|edge|hed/i) ?? names.find((name) => !other.test(name)) ?? null;
}

/**
 * Draws an image until it covers everything, cut in the middle.
 * @param {CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D} context
 * @param {ImageBitmap | OffscreenCanvas} image
 * @param {number} width
 * @param {number} height
 */
function cover(context, image, width, height) {
  const scale = Math.max(width / image.width, height / image.height);
  const [w, h] = [image.width * scale, image.height * scale];
  context.imageSmoothingQuality = "high";
  context.drawImage(image, (width - w) / 2, (height - h) / 2, w, h);
}

/**
 * A canvas as a file; nothing as no bytes.
 * @param {OffscreenCanvas | null} surface
 * @param {string} type
 */
async function encoded(surface, type) {
  if (!surface) return new Uint8Array();
  const blob = await surface.convertToBlob({ type, quality: 0.92 });
  return new Uint8Array(await blob.arrayBuffer());
}
