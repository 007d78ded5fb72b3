// Records a session as a file of requests, and plays such a file back: every request is sent again,
// painted to its end, and the pixels are compared with those of the recording.

import { saveGif } from "./animation.js";
import { button, download, html, mark, onFile, why } from "./dom.js";
import { decodePng } from "./png.js";
import { sha256 } from "./sha256.js";

/** @import { Frame, Request } from "./types.js" */
/** @import { SentJob } from "./painter.js" */

/**
 * @typedef {object} Event
 * @property {number} at_ms since the recording began
 * @property {Request} request
 * @property {number} [image] index into `images`
 * @property {string} [sha256] of the finished picture's RGB bytes, where the session saw it finished
 */
/** @typedef {{format: "prima-replay", version: 1, model: string, events: Event[], images: string[]}} Tape */

/** @param {Blob} blob */
export async function pixelHash(blob) {
  return sha256((await decodePng(blob)).rgb);
}

export class Replay {
  #record = button("record");
  #play = button("replay");
  #status = html("replay-status");
  /** @type {Tape | null} */
  #tape = null;
  #began = 0;
  #recording = false;
  /** @type {Map<number, Event>} */
  #byRev = new Map();
  /** @type {Promise<void>[]} */
  #hashing = [];
  /** Finished pictures of the last recording or playback. */
  /** @type {Blob[]} */
  #pictures = [];
  #stop = false;
  /** Ends the wait for a picture, which may never come once others were asked for. */
  /** @type {(() => void) | null} */
  #stopped = null;
  #playing = false;
  #host;

  /**
   * @param {object} host
   * @param {() => string} host.model
   * @param {(request: Request, image: Uint8Array | undefined) => Promise<Frame>} host.paint paints to the end
   * @param {(prompt: string) => void} host.prompt shows the prompt that is being painted
   * @param {() => void} host.ended the page's own prompt and picture are due again
   * @param {(message: string, hint: string) => void} host.failed
   */
  constructor(host) {
    this.#host = host;
    this.#record.addEventListener("click", () => void this.toggleRecording());
    this.#play.addEventListener("click", () => (this.#playing ? this.stop() : this.#tape ? void this.play(this.#tape) : pick()));
    button("gif").addEventListener("click", () => void this.#gif());
    const pick = onFile("replay-file", (file) => void this.load(file));
  }

  /** @param {SentJob} job */
  sent(job) {
    if (!this.#recording || this.#playing || !this.#tape || job.request.type !== "paint") return;
    /** @type {Event} */
    const event = { at_ms: Math.round(job.sent_ms - this.#began), request: job.request };
    if (job.image) event.image = this.#image(this.#tape, job.image);
    this.#tape.events.push(event);
    this.#byRev.set(job.rev, event);
    this.#say(`Recording: ${this.#tape.events.length} requests`);
  }

  /** @param {Frame} frame */
  received(frame) {
    const event = this.#byRev.get(frame.header.rev);
    if (!event || !frame.header.final) return;
    this.#byRev.delete(frame.header.rev);
    this.#pictures.push(frame.blob);
    this.#hashing.push(pixelHash(frame.blob).then((hash) => void (event.sha256 = hash)));
  }

  /**
   * @param {Tape} tape
   * @param {Uint8Array} image
   */
  #image(tape, image) {
    const text = toBase64(image);
    const known = tape.images.indexOf(text);
    return known >= 0 ? known : tape.images.push(text) - 1;
  }

  async toggleRecording() {
    if (this.#playing) return;
    if (!this.#recording) {
      this.#tape = { format: "prima-replay", version: 1, model: this.#host.model(), events: [], images: [] };
      this.#began = performance.now();
      this.#byRev.clear();
      this.#pictures = [];
      this.#setRecording(true);
      return this.#say("Recording: type, draw, roll the dice");
    }
    this.#setRecording(false);
    await Promise.all(this.#hashing.splice(0));
    if (!this.#tape || this.#tape.events.length === 0) {
      this.#tape = null;
      return this.#say("Nothing was painted while recording.");
    }
    download(new Blob([JSON.stringify(this.#tape)], { type: "application/json" }), "prima-replay.json");
    this.#say(`${this.#tape.events.length} requests kept. Replay plays them back.`);
    this.#offer();
  }

  /** @param {boolean} on */
  #setRecording(on) {
    this.#recording = on;
    mark(this.#record, "aria-pressed", on);
    html("record-text").textContent = on ? "Stop" : "Record";
  }

  #offer() {
    button("gif").disabled = this.#pictures.length === 0;
  }

  /** @param {Blob} file */
  async load(file) {
    try {
      this.#tape = checked(JSON.parse(await file.text()));
      await this.play(this.#tape);
    } catch (error) {
      this.#host.failed("This is not a replay file of prima.", error instanceof Error ? error.message : "");
    }
  }

  stop() {
    this.#stop = true;
    this.#stopped?.();
  }

  /** @param {Tape} tape */
  async play(tape) {
    if (this.#playing || this.#recording) return;
    this.#setPlaying(true);
    this.#pictures = [];
    let [equal, compared, done] = [0, 0, 0];
    /** @type {string[]} */
    const different = [];
    try {
      for (const event of tape.events) {
        if (this.#stop) break;
        this.#host.prompt(event.request.prompt);
        const image = event.image === undefined ? undefined : fromBase64(tape.images[event.image] ?? "");
        const stopped = new Promise((resolve) => (this.#stopped = () => resolve(null)));
        const frame = /** @type {Frame | null} */ (await Promise.race([this.#host.paint(event.request, image), stopped]));
        if (!frame || this.#stop) break;
        this.#pictures.push(frame.blob);
        done += 1;
        if (event.sha256) {
          compared += 1;
          if ((await pixelHash(frame.blob)) === event.sha256) equal += 1;
          else different.push(event.request.prompt);
        }
        this.#say(`Playing ${done} of ${tape.events.length}`);
      }
      const all = done === tape.events.length;
      const whose = tape.model === this.#host.model() ? "" : ` The recording was made with ${tape.model}.`;
      const verdict = different.length === 0 ? `${all ? "All" : "Those"} ${equal} finished pictures are equal to the recording's, bit for bit.` : `${different.length} of ${compared} finished pictures differ, first “${different[0]}”.${whose}`;
      this.#say(`${all ? "" : "Stopped: "}${done} of ${tape.events.length} played. ${compared > 0 || all ? verdict : ""}`);
    } catch (error) {
      this.#host.failed("The replay stopped.", why(error));
      this.#say(`Stopped after ${done} of ${tape.events.length}.`);
    } finally {
      this.#setPlaying(false);
      this.#offer();
      this.#host.ended();
    }
  }

  /** @param {boolean} on */
  #setPlaying(on) {
    this.#playing = on;
    this.#stop = false;
    this.#stopped = null;
    html("replay-text").textContent = on ? "Stop" : "Replay";
    mark(this.#play, "aria-pressed", on);
    button("gif").disabled = on;
  }

  get playing() {
    return this.#playing;
  }

  async #gif() {
    try {
      await saveGif(this.#pictures, 140, "prima.gif");
    } catch (error) {
      this.#host.failed("The animation could not be made.", why(error));
    }
  }

  /** @param {string} text */
  #say(text) {
    this.#status.textContent = text;
    this.#status.hidden = false;
  }
}

/**
 * A tape from a file that anyone may have written.
 * @param {unknown} found
 * @returns {Tape}
 */
function checked(found) {
  const tape = /** @type {Partial<Tape> | null} */ (found);
  if (tape?.format !== "prima-replay") throw new Error("The file does not say that it is one.");
  if (tape.version !== 1) throw new Error(`It is of version ${tape.version}; this page plays version 1.`);
  const events = Array.isArray(tape.events) ? tape.events : [];
  const images = Array.isArray(tape.images) ? tape.images.filter((image) => typeof image === "string") : [];
  const whole = events.every((e) => e?.request?.type === "paint" && typeof e.request.prompt === "string" && (e.image === undefined || e.image in images));
  if (!whole || events.length === 0) throw new Error("Its list of requests is empty or damaged.");
  return { format: "prima-replay", version: 1, model: String(tape.model), events, images };
}

/** @param {Uint8Array} bytes */
function toBase64(bytes) {
  let text = "";
  for (let i = 0; i < bytes.length; i += 0x8000) text += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  return btoa(text);
}

/** @param {string} text */
function fromBase64(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}
