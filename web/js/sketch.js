// The sketch pad: strokes over a ground (a colour, an image, the camera or the screen).
// Whenever it changes, and the picture before has come back, it is sent to be painted over.

import { button, canvas, context2d, html, input, make, mark, onFile, style } from "./dom.js";
import { Capture } from "./capture.js";

/** @import { Source } from "./capture.js" */

/** Sides are fractions of the pad's width, so that strokes survive a change of shape. */
/** @typedef {{colour: string, size: number, erase: boolean, points: [number, number, number][]}} Stroke */

const COLOURS = ["#1d1d1f", "#ffffff", "#e0322b", "#f08a24", "#f6cf3a", "#3fa34d", "#2f6fde", "#7c4bc9", "#f29bb7", "#8a5a34", "#9bd0f0"];
const PAD_PX = 512;
/** Above this a PNG takes the browser longer to write than the network to paint. */
const MOST_PNG_PX = 320 * 320;
/** A picture that has not come back by then is no longer waited for. */
const PATIENCE_MS = 1500;

export class Sketch {
  #pad = canvas("pad");
  #strokes = new OffscreenCanvas(PAD_PX, PAD_PX);
  /** @type {Stroke[]} */
  #done = [];
  /** @type {Stroke | null} */
  #current = null;
  #colour = COLOURS[2] ?? "#000000";
  #erase = false;
  /** @type {{colour: string, image: ImageBitmap | null}} */
  #ground = { colour: "#ffffff", image: null };
  #capture = new Capture(() => this.#stopCapture());
  #on = false;
  #dirty = false;
  #waiting_since = 0;
  #encoding = false;
  #shape = { width: 128, height: 128 };
  #changed;
  #failed;

  /**
   * @param {(image: Uint8Array) => void} changed with the pad as a PNG or JPEG file of the picture's size
   * @param {(message: string) => void} failed
   */
  constructor(changed, failed) {
    this.#changed = changed;
    this.#failed = failed;
    this.#swatches();
    this.#pointer();
    button("eraser").addEventListener("click", () => this.#setErase(!this.#erase));
    button("pad-undo").addEventListener("click", () => this.undo());
    button("pad-clear").addEventListener("click", () => this.clear());
    button("pad-fill").addEventListener("click", () => this.#setGround({ colour: this.#colour, image: null }));
    button("pad-camera").addEventListener("click", () => this.#toggleCapture("camera"));
    button("pad-screen").addEventListener("click", () => this.#toggleCapture("screen"));
    const pick = onFile("pad-file", (file) => void this.putImage(file));
    button("pad-image").addEventListener("click", pick);
    this.#redraw();
  }

  get moving() {
    return this.#capture.source !== null;
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

  /**
   * @param {number} width of the picture
   * @param {number} height
   */
  setShape(width, height) {
    if (width === this.#shape.width && height === this.#shape.height) return;
    this.#shape = { width, height };
    const scale = Math.max(1, Math.round(PAD_PX / Math.max(width, height)));
    for (const surface of [this.#pad, this.#strokes]) {
      surface.width = width * scale;
      surface.height = height * scale;
    }
    this.#redraw();
  }

  undo() {
    if (this.#done.pop()) this.#redraw();
    else this.#setGround({ colour: "#ffffff", image: null });
  }

  clear() {
    this.#done = [];
    this.#stopCapture();
    this.#setGround({ colour: "#ffffff", image: null });
  }

  /** @param {Blob} file */
  async putImage(file) {
    try {
      this.#setGround({ colour: "#ffffff", image: await createImageBitmap(file) });
    } catch {
      this.#failed("This file is not an image that the browser can read. Use a PNG, JPEG or WebP file.");
    }
  }

  /** @param {{colour: string, image: ImageBitmap | null}} ground */
  #setGround(ground) {
    this.#ground.image?.close();
    this.#ground = ground;
    this.#redraw();
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
      const size = input("brush").valueAsNumber / PAD_PX;
      this.#current = { colour: this.#colour, size, erase: this.#erase, points: [] };
      this.#done.push(this.#current);
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
    this.#current.points.push([(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.width, pressure]);
    this.#drawStroke(this.#current, this.#current.points.length - 1);
    this.#compose();
  }

  /**
   * @param {Stroke} stroke
   * @param {number} from index of the first point that is new
   */
  #drawStroke(stroke, from) {
    const context = context2d(this.#strokes);
    const scale = this.#strokes.width;
    context.globalCompositeOperation = stroke.erase ? "destination-out" : "source-over";
    context.strokeStyle = stroke.colour;
    context.lineCap = "round";
    for (let i = from; i < stroke.points.length; i++) {
      const to = stroke.points[i];
      const at = stroke.points[i - 1] ?? to;
      if (!to || !at) continue;
      context.lineWidth = stroke.size * scale * to[2];
      context.beginPath();
      context.moveTo(at[0] * scale, at[1] * scale);
      context.lineTo(to[0] * scale, to[1] * scale);
      context.stroke();
    }
  }

  #redraw() {
    context2d(this.#strokes).clearRect(0, 0, this.#strokes.width, this.#strokes.height);
    for (const stroke of this.#done) this.#drawStroke(stroke, 0);
    this.#compose();
  }

  #compose() {
    const context = context2d(this.#pad);
    const { width, height } = this.#pad;
    context.fillStyle = this.#ground.colour;
    context.fillRect(0, 0, width, height);
    const image = this.#ground.image;
    if (image) {
      const scale = Math.max(width / image.width, height / image.height);
      const [w, h] = [image.width * scale, image.height * scale];
      context.imageSmoothingQuality = "high";
      context.drawImage(image, (width - w) / 2, (height - h) / 2, w, h);
    }
    if (this.moving) this.#capture.draw(context, width, height);
    context.drawImage(this.#strokes, 0, 0);
    this.#dirty = true;
    this.#pump();
  }

  /** Sends the pad if it has changed and nothing is on its way. */
  #pump() {
    if (!this.#on || !this.#dirty || this.#encoding) return;
    const waited = performance.now() - this.#waiting_since;
    if (this.#waiting_since && waited < PATIENCE_MS) return void setTimeout(() => this.#pump(), 8);
    this.#dirty = false;
    this.#encoding = true;
    void this.#encode().then((image) => {
      this.#encoding = false;
      if (!this.#on) return;
      this.#waiting_since = performance.now();
      this.#changed(image);
      this.#pump();
    });
  }

  async #encode() {
    const { width, height } = this.#shape;
    const small = new OffscreenCanvas(width, height);
    const context = context2d(small);
    context.imageSmoothingQuality = "high";
    context.drawImage(this.#pad, 0, 0, width, height);
    const type = width * height > MOST_PNG_PX ? "image/jpeg" : "image/png";
    const blob = await small.convertToBlob({ type, quality: 0.92 });
    return new Uint8Array(await blob.arrayBuffer());
  }

  /** @param {Source} source */
  async #toggleCapture(source) {
    if (this.#capture.source === source) return this.#stopCapture();
    try {
      await this.#capture.start(source);
      this.#showCapture();
      this.#roll();
    } catch (error) {
      this.#stopCapture();
      this.#failed(error instanceof Error ? error.message : String(error));
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
  }
}
