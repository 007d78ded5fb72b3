// Sends what the page wants painted and sorts what comes back by revision.
// At most one message an animation frame; the revision rises with each; older frames are never handed on after newer.

/** @import { Frame, Request, Sensitivity, ServerError, Timings } from "./types.js" */
/** @import { Live } from "./live.js" */

/**
 * @typedef {object} Job
 * @property {Request} request
 * @property {Uint8Array} [image]
 * @property {(frame: Frame, job: SentJob) => void} [frame]
 * @property {(message: Sensitivity) => void} [words]
 * @property {(error: ServerError) => void} [failed]
 */

/** @typedef {Job & {rev: number, sent_ms: number, key_ms: number | null}} SentJob */

/** Jobs of which frames may still come; more than the server could ever owe. */
const REMEMBERED = 64;

export class Painter {
  rev = 0;
  /** @type {Live} */
  #live;
  /** @type {(() => Job | null) | null} */
  #next = null;
  /** @type {number | null} */
  #key_ms = null;
  #scheduled = false;
  /** @type {Map<number, SentJob>} */
  #jobs = new Map();
  /** @type {Set<(job: SentJob) => void>} */
  #sent = new Set();
  /** @type {Set<(job: SentJob, frame: Frame) => void>} */
  #frames = new Set();

  /** @param {Live} live */
  constructor(live) {
    this.#live = live;
  }

  /** @param {(job: SentJob) => void} listener called after each message that left */
  onSent(listener) {
    this.#sent.add(listener);
  }

  /** @param {(job: SentJob, frame: Frame) => void} listener called before a frame goes to its job */
  onFrame(listener) {
    this.#frames.add(listener);
  }

  /**
   * Asks for a picture at the next animation frame. A later call before that replaces this one.
   * @param {() => Job | null} make called when it is time to send
   * @param {number | null} [key_ms] when the key that caused it was pressed
   */
  ask(make, key_ms = null) {
    this.#next = make;
    this.#key_ms ??= key_ms;
    if (this.#scheduled) return;
    this.#scheduled = true;
    // A hidden page has no animation frames.
    if (document.hidden) setTimeout(() => this.#flush(), 16);
    else requestAnimationFrame(() => this.#flush());
  }

  #flush() {
    this.#scheduled = false;
    const job = this.#next?.();
    this.#next = null;
    const key_ms = this.#key_ms;
    this.#key_ms = null;
    if (job) this.send(job, key_ms);
  }

  /**
   * Sends at once.
   * @param {Job} job
   * @param {number | null} [key_ms]
   * @returns {number | null} the revision; null without a connection
   */
  send(job, key_ms = null) {
    const rev = this.rev + 1;
    if (!this.#live.send({ ...job.request, rev }, job.image)) return null;
    this.rev = rev;
    const sent = { ...job, rev, sent_ms: performance.now(), key_ms };
    this.#jobs.set(rev, sent);
    for (const old of this.#jobs.keys()) {
      if (this.#jobs.size <= REMEMBERED) break;
      this.#jobs.delete(old);
    }
    for (const listener of this.#sent) listener(sent);
    return rev;
  }

  /** Ends work on what was asked for so far. */
  cancel() {
    this.#live.send({ type: "cancel", rev: this.rev });
  }

  /** @param {Frame} frame */
  receive(frame) {
    const job = this.#jobs.get(frame.header.rev);
    if (!job) return;
    for (const listener of this.#frames) listener(job, frame);
    job.frame?.(frame, job);
  }

  /** @param {Sensitivity} message */
  receiveWords(message) {
    this.#jobs.get(message.rev)?.words?.(message);
  }

  /**
   * @param {ServerError} error
   * @returns {boolean} whether the newest revision is the one at fault
   */
  fail(error) {
    if (error.rev === null) return true;
    this.#jobs.get(error.rev)?.failed?.(error);
    return error.rev >= this.rev;
  }

  /** After a reconnection the server knows nothing of earlier revisions. */
  forget() {
    this.#jobs.clear();
  }
}

/** @param {Timings} timings */
export function serverTotal(timings) {
  const steps = timings.steps_ms.reduce((sum, ms) => sum + ms, 0);
  return timings.queue_ms + timings.text_ms + (timings.init_image_ms ?? 0) + steps + timings.decode_ms + timings.encode_ms;
}
