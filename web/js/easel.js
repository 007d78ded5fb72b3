// Draws frames: decodes them off the main thread, paints the newest at the next animation frame, never an older one.

import { canvas, context2d, html, style } from "./dom.js";

/** @import { Frame } from "./types.js" */
/** @import { SentJob } from "./painter.js" */

/** @typedef {{frame: Frame, job: SentJob | null, bitmap: ImageBitmap, decoded_ms: number, painted_ms: number}} Shown */

/** A backing store beyond this is slower to draw than it is worth. */
const MOST_PX = 1280;

export class Easel {
  #canvas = canvas("picture");
  #frameBox = html("picture-frame");
  #glow = canvas("glow");
  /** @type {Shown | null} */
  #shown = null;
  /** @type {Shown | null} */
  #next = null;
  #scheduled = false;
  /** @type {Set<(shown: Shown) => void>} */
  #painted = new Set();
  #tint = context2d(new OffscreenCanvas(8, 8), { willReadFrequently: true });

  constructor() {
    new ResizeObserver(() => this.#draw()).observe(this.#frameBox);
  }

  get shown() {
    return this.#shown;
  }

  /** @param {(shown: Shown) => void} listener called once the picture has been handed to the screen */
  onPainted(listener) {
    this.#painted.add(listener);
  }

  /**
   * @param {Frame} frame
   * @param {SentJob | null} [job] what it answers
   */
  async show(frame, job = null) {
    if (!this.#newer(frame)) return;
    const bitmap = await createImageBitmap(frame.blob, { colorSpaceConversion: "none" });
    if (!this.#newer(frame)) return bitmap.close();
    if (this.#next && this.#next !== this.#shown) this.#next.bitmap.close();
    this.#next = { frame, job, bitmap, decoded_ms: performance.now(), painted_ms: 0 };
    if (this.#scheduled) return;
    this.#scheduled = true;
    if (document.hidden) setTimeout(() => this.#paint(), 16);
    else requestAnimationFrame(() => this.#paint());
  }

  /** @param {Frame} frame */
  #newer(frame) {
    const latest = (this.#next ?? this.#shown)?.frame.header;
    if (!latest) return true;
    const { rev, tier, step } = frame.header;
    if (rev !== latest.rev) return rev > latest.rev;
    return tier !== latest.tier ? tier > latest.tier : step >= latest.step;
  }

  #paint() {
    this.#scheduled = false;
    const next = this.#next;
    this.#next = null;
    if (!next) return;
    this.#shown?.bitmap.close();
    this.#shown = next;
    this.setShape(next.bitmap.width, next.bitmap.height);
    this.#draw();
    this.#tintWall(next.bitmap);
    // The task after the frame's rendering: the picture is then with the compositor.
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      next.painted_ms = performance.now();
      for (const listener of this.#painted) listener(next);
    };
    port2.postMessage(null);
  }

  /**
   * @param {number} width
   * @param {number} height
   */
  setShape(width, height) {
    style(document.documentElement, { w: width, h: height });
  }

  #draw() {
    if (!this.#shown) return;
    const { bitmap } = this.#shown;
    const box = this.#frameBox.getBoundingClientRect();
    const scale = Math.min(devicePixelRatio, MOST_PX / Math.max(box.width, box.height, 1));
    const width = Math.max(bitmap.width, Math.round(box.width * scale));
    const height = Math.max(bitmap.height, Math.round(box.height * scale));
    if (this.#canvas.width !== width || this.#canvas.height !== height) {
      this.#canvas.width = width;
      this.#canvas.height = height;
    }
    const context = context2d(this.#canvas);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, width, height);
    this.#frameBox.dataset.fresh = "true";
  }

  /** The wall takes a breath of the picture's colour; the glow behind it is the picture at 8 x 8. */
  /** @param {ImageBitmap} bitmap */
  #tintWall(bitmap) {
    const small = this.#tint;
    small.imageSmoothingQuality = "high";
    small.drawImage(bitmap, 0, 0, 8, 8);
    const { data } = small.getImageData(0, 0, 8, 8);
    style(document.documentElement, { tint: livelyMean(data) });
    context2d(this.#glow).putImageData(new ImageData(data, 8, 8), 0, 0);
  }

  /** The newest picture is out of date, or no longer. */
  /** @param {boolean} fresh */
  setFresh(fresh) {
    this.#frameBox.dataset.fresh = String(fresh);
  }

  /** @param {string} text for screen readers */
  describe(text) {
    this.#canvas.setAttribute("aria-label", text);
  }

  /** The shown picture's pixels at its own size, RGBA. */
  pixels() {
    if (!this.#shown) return null;
    const { bitmap } = this.#shown;
    const context = context2d(new OffscreenCanvas(bitmap.width, bitmap.height), { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    return context.getImageData(0, 0, bitmap.width, bitmap.height);
  }
}

/**
 * The mean colour, in which colourful pixels weigh more than grey ones.
 * @param {Uint8ClampedArray} rgba
 */
function livelyMean(rgba) {
  let [r, g, b, sum] = [0, 0, 0, 0];
  for (let i = 0; i < rgba.length; i += 4) {
    const [pr, pg, pb] = [rgba[i] ?? 0, rgba[i + 1] ?? 0, rgba[i + 2] ?? 0];
    const weight = 8 + Math.max(pr, pg, pb) - Math.min(pr, pg, pb);
    r += pr * weight;
    g += pg * weight;
    b += pb * weight;
    sum += weight;
  }
  return `rgb(${Math.round(r / sum)} ${Math.round(g / sum)} ${Math.round(b / sum)})`;
}
