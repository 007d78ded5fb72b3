// The honest meter: from the keystroke to the painted picture, and where the time went.

import { canvas, context2d, html, make, style } from "./dom.js";
import { serverTotal } from "./painter.js";

/** @import { FrameHeader } from "./types.js" */

/**
 * @typedef {object} Measured
 * @property {FrameHeader} header
 * @property {number | null} key_ms when the key was pressed; null if no key caused the picture
 * @property {number} sent_ms
 * @property {number} arrived_ms
 * @property {number} decoded_ms
 * @property {number} painted_ms
 */

const KEPT = 120;

export class Meter {
  /** Keystroke to picture, newest last. */
  /** @type {number[]} */
  latencies = [];
  #line = canvas("meter-line");
  /** Frames painted lately, for the sketch's pictures a second. */
  /** @type {number[]} */
  #painted = [];
  /** Keys whose revision, or a later one, has not been painted yet: [rev, pressed at]. */
  /** @type {[number, number][]} */
  #open = [];
  #latest = 0;

  /**
   * A message left that answers a key.
   * @param {number} rev
   * @param {number} key_ms
   */
  key(rev, key_ms) {
    this.#open.push([rev, key_ms]);
  }

  /** The connection is gone, and with it what was on its way. */
  forget() {
    this.#open = [];
  }

  /** @param {Measured} measured */
  painted(measured) {
    const { header, painted_ms } = measured;
    this.#painted.push(painted_ms);
    // A dropped revision's key is answered by the first later picture: it waited that long.
    const answered = this.#open.filter(([rev]) => rev <= header.rev);
    this.#open = this.#open.filter(([rev]) => rev > header.rev);
    for (const [, key_ms] of answered) this.latencies.push(painted_ms - key_ms);
    this.latencies.splice(0, this.latencies.length - KEPT);
    // The first picture of a revision is what the eye waits for; later ones refine it.
    if (header.rev > this.#latest) this.#show(measured);
    this.#latest = header.rev;
    html("meter-dropped").textContent = String(header.dropped);
    html("meter-cancelled").textContent = String(header.cancelled);
  }

  /** @param {Measured} measured */
  #show(measured) {
    const { header, key_ms, sent_ms, arrived_ms, decoded_ms, painted_ms } = measured;
    const total = painted_ms - (key_ms ?? sent_ms);
    html("meter-last").textContent = milliseconds(total);
    html("pulse-text").textContent = milliseconds(total);
    const flags = [header.cold ? "cold" : "warm", header.text_cached ? "words known" : "words read"];
    html("meter-flags").textContent = flags.join(", ");
    const { timings } = header;
    this.#parts([
      ["wait to send", sent_ms - (key_ms ?? sent_ms)],
      ["queue", timings.queue_ms],
      ["words", timings.text_ms],
      ...(timings.init_image_ms ? [/** @type {[string, number]} */ (["sketch", timings.init_image_ms])] : []),
      ...stepRows(timings.steps_ms),
      ["decode", timings.decode_ms],
      ["encode", timings.encode_ms],
      ["network", Math.max(0, arrived_ms - sent_ms - serverTotal(timings))],
      ["unpack", decoded_ms - arrived_ms],
      ["paint", painted_ms - decoded_ms],
    ]);
    html("meter-p50").textContent = milliseconds(quantile(this.latencies, 0.5));
    html("meter-p95").textContent = milliseconds(quantile(this.latencies, 0.95));
    this.#draw();
  }

  /** @param {[string, number][]} parts */
  #parts(parts) {
    const bars = [];
    const rows = [];
    for (const [i, [name, ms]] of parts.entries()) {
      const part = `oklch(0.66 0.1 ${Math.round((i / parts.length) * 300 + 20)})`;
      const bar = make("i", { title: name });
      style(bar, { ms: Math.max(ms, 0), part });
      bars.push(bar);
      const row = make("div", {}, make("dt", {}, name), make("dd", {}, ms.toFixed(1)));
      style(row, { part });
      rows.push(row);
    }
    html("meter-bar").replaceChildren(...bars);
    html("meter-parts").replaceChildren(...rows);
  }

  /** One bar a keystroke. */
  #draw() {
    const { width, height } = this.#line;
    const context = context2d(this.#line);
    const most = Math.max(...this.latencies, 1);
    const step = 5;
    const recent = this.latencies.slice(-Math.floor(width / step));
    context.clearRect(0, 0, width, height);
    context.fillStyle = getComputedStyle(this.#line).color;
    recent.forEach((ms, i) => {
      const tall = Math.max(1, (ms / most) * height);
      context.globalAlpha = i === recent.length - 1 ? 0.9 : 0.35;
      context.fillRect(i * step, height - tall, step - 2, tall);
    });
  }

  /** Pictures painted in the last second. */
  fps() {
    const now = performance.now();
    this.#painted = this.#painted.filter((at) => now - at < 2000);
    return this.#painted.length / 2;
  }
}

/** @param {number | null} ms */
function milliseconds(ms) {
  if (ms === null) return "–";
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/**
 * The value that this share of the values does not exceed (nearest rank).
 * @param {number[]} values
 * @param {number} share
 */
export function quantile(values, share) {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? null;
}

/**
 * Each step by itself, as long as they fit.
 * @param {number[]} steps_ms
 * @returns {[string, number][]}
 */
function stepRows(steps_ms) {
  if (steps_ms.length <= 4) return steps_ms.map((ms, i) => [`step ${i + 1}`, ms]);
  const rest = steps_ms.slice(3);
  return [...stepRows(steps_ms.slice(0, 3)), [`steps 4–${steps_ms.length}`, rest.reduce((sum, ms) => sum + ms, 0)]];
}
