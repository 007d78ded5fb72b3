// A moving ground, frame by frame: which frames are worth painting, and how much of the last picture stays in the next.

import { context2d } from "./dom.js";

/** Frames are compared at this size, which hides the camera's noise. */
const SIDE = 32;
/** A frame is another one if one of its cells, or all in the mean, differ by more than this (of 255). */
const CELL = 12;
const MEAN = 2;

export class Steady {
  #small = context2d(new OffscreenCanvas(SIDE, SIDE), { willReadFrequently: true });
  /** @type {Uint8ClampedArray | null} the frame that was painted last */
  #before = null;
  /** How much of the last picture stays in the next frame, 0 to 1. */
  share = 0;
  /** Whether the newest frame was the one before. */
  still = false;

  /** The next frame is another one, whatever it shows. */
  forget() {
    this.#before = null;
    this.still = false;
  }

  /** @param {OffscreenCanvas} frame */
  isOther(frame) {
    this.#small.imageSmoothingQuality = "high";
    this.#small.drawImage(frame, 0, 0, SIDE, SIDE);
    const { data } = this.#small.getImageData(0, 0, SIDE, SIDE);
    this.still = this.#before !== null && alike(this.#before, data);
    if (!this.still) this.#before = data;
    return !this.still;
  }

  /**
   * Lays the last picture over a frame.
   * @param {CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D} context
   * @param {ImageBitmap | null} picture
   */
  lay(context, picture) {
    if (this.share <= 0 || !picture) return;
    context.globalAlpha = this.share;
    context.drawImage(picture, 0, 0, context.canvas.width, context.canvas.height);
    context.globalAlpha = 1;
  }
}

/**
 * @param {Uint8ClampedArray} a RGBA
 * @param {Uint8ClampedArray} b
 */
function alike(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) {
    const change = Math.abs((a[i] ?? 0) - (b[i] ?? 0));
    if (change > CELL) return false;
    sum += change;
  }
  // Alpha is the same everywhere: three of four values count.
  return sum / (a.length * 0.75) <= MEAN;
}
