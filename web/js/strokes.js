// Strokes on a transparent surface: the colours of the sketch, its mask, or its lines.

import { context2d } from "./dom.js";

/** Sides are fractions of the surface's width, so that strokes survive a change of shape. */
/** @typedef {{colour: string, size: number, erase: boolean, points: [number, number, number][]}} Stroke */

export class Strokes {
  surface;
  /** What was done, in order; a colour alone is an inversion, in it. */
  /** @type {(Stroke | string)[]} */
  #done = [];

  /** @param {number} px */
  constructor(px) {
    this.surface = new OffscreenCanvas(px, px);
  }

  get isEmpty() {
    return this.#done.length === 0;
  }

  /**
   * @param {number} width
   * @param {number} height
   */
  resize(width, height) {
    this.surface.width = width;
    this.surface.height = height;
    this.#redraw();
  }

  /** @param {Stroke} stroke */
  begin(stroke) {
    this.#done.push(stroke);
  }

  /**
   * @param {Stroke} stroke the one that was begun last
   * @param {[number, number, number]} point
   */
  extend(stroke, point) {
    stroke.points.push(point);
    this.#draw(stroke, stroke.points.length - 1);
  }

  /** @param {string} colour of what becomes covered */
  invert(colour) {
    this.#done.push(colour);
    this.#turn(colour);
  }

  /** @returns {boolean} whether there was anything to undo */
  undo() {
    if (this.#done.pop() === undefined) return false;
    this.#redraw();
    return true;
  }

  clear() {
    this.#done = [];
    this.#redraw();
  }

  /**
   * The surface in one colour over another, at a size.
   * @param {string | CanvasPattern} colour
   * @param {string} ground
   * @param {number} width
   * @param {number} height
   */
  flat(colour, ground, width, height) {
    const small = new OffscreenCanvas(width, height);
    const context = context2d(small);
    context.imageSmoothingQuality = "high";
    context.drawImage(this.surface, 0, 0, width, height);
    for (const [operation, fill] of /** @type {const} */ ([["source-in", colour], ["destination-over", ground]])) {
      context.globalCompositeOperation = operation;
      context.fillStyle = fill;
      context.fillRect(0, 0, width, height);
    }
    return small;
  }

  #redraw() {
    context2d(this.surface).clearRect(0, 0, this.surface.width, this.surface.height);
    for (const step of this.#done) {
      if (typeof step === "string") this.#turn(step);
      else this.#draw(step, 0);
    }
  }

  /** @param {string} colour */
  #turn(colour) {
    const context = context2d(this.surface);
    context.globalCompositeOperation = "xor";
    context.fillStyle = colour;
    context.fillRect(0, 0, this.surface.width, this.surface.height);
  }

  /**
   * @param {Stroke} stroke
   * @param {number} from index of the first point that is new
   */
  #draw(stroke, from) {
    const context = context2d(this.surface);
    const scale = this.surface.width;
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
}
