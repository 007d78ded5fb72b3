// Many pictures of one prompt, seed after seed, by a connection of their own: the page is used meanwhile. They go to the gallery.

import { button, byId, html, input } from "./dom.js";
import { Live } from "./live.js";
import { note } from "./notice.js";

/** @import { Frame, Hello, Request, ServerError, Settings } from "./types.js" */

/** @typedef {{settings: Settings, request: Request, image: Uint8Array | undefined, model: string}} Order */

export class Many {
  #count = input("many-count");
  #button = button("many");
  #progress = byId("many-progress", HTMLProgressElement);
  #state = html("many-state");
  /** @type {Live | null} */
  #live = null;
  /** @type {Order | null} */
  #order = null;
  #wanted = 0;
  #done = 0;
  #began_ms = 0;
  #host;

  /**
   * @param {object} host
   * @param {() => Order | null} host.order the picture of the present settings; null where there is none
   * @param {(settings: Settings, blob: Blob) => Promise<void>} host.keep
   * @param {(message: string, hint?: string) => void} host.failed
   */
  constructor(host) {
    this.#host = host;
    this.#button.addEventListener("click", () => (this.#live ? this.#end("stopped") : this.#start()));
    this.#count.addEventListener("input", () => this.#show());
    this.#show();
  }

  get #asked() {
    return Math.round(Math.min(Math.max(this.#count.valueAsNumber || 1, 1), Number(this.#count.max)));
  }

  #start() {
    this.#order = this.#host.order();
    if (!this.#order) return this.#host.failed("There is nothing to paint many of.", "Write a prompt first.");
    this.#wanted = this.#asked;
    this.#done = 0;
    this.#began_ms = performance.now();
    this.#live = new Live({
      opened: () => {},
      loading: () => {},
      hello: (hello) => this.#greeted(hello),
      frame: (frame) => void this.#painted(frame),
      sensitivity: () => {},
      error: (error) => this.#failed(error),
      closed: ({ reason, retry_ms }) => {
        if (retry_ms === null) this.#failed({ message: reason || "The server refused another connection." });
      },
    });
    this.#live.connect();
    this.#show();
  }

  /** Also after a lost connection: the picture that was on its way is asked for again. */
  /** @param {Hello} hello */
  #greeted({ chosen }) {
    const model = this.#order?.model;
    if (model && model !== chosen) this.#live?.send({ type: "model", name: model });
    else this.#next();
  }

  get #seed() {
    return ((this.#order?.settings.seed ?? 0) + this.#done) % Number.MAX_SAFE_INTEGER;
  }

  #next() {
    if (!this.#order) return;
    const { request, image } = this.#order;
    this.#live?.send({ ...request, preview: false, seed: this.#seed, rev: this.#done + 1 }, image);
  }

  /** @param {Frame} frame */
  async #painted({ header, blob }) {
    if (!this.#order || !header.final || header.rev !== this.#done + 1) return;
    const settings = { ...this.#order.settings, seed: this.#seed };
    this.#done += 1;
    await this.#host.keep(settings, blob);
    if (this.#done === this.#wanted) this.#end("done");
    else this.#next();
    this.#show();
  }

  /** @param {Pick<ServerError, "message" | "hint">} error */
  #failed({ message, hint }) {
    this.#end("failed");
    this.#host.failed(message, hint);
  }

  /** @param {"done" | "stopped" | "failed"} how */
  #end(how) {
    this.#live?.close();
    this.#live = null;
    this.#order = null;
    this.#show();
    if (how !== "failed") note(`${this.#done} ${this.#done === 1 ? "picture is" : "pictures are"} in the gallery`);
  }

  #show() {
    const runs = this.#live !== null;
    this.#button.textContent = runs ? "Stop" : `Paint ${this.#asked}`;
    this.#count.disabled = runs;
    this.#progress.hidden = !runs;
    this.#progress.max = this.#wanted;
    this.#progress.value = this.#done;
    const left_s = Math.ceil(((performance.now() - this.#began_ms) / Math.max(this.#done, 1) / 1000) * (this.#wanted - this.#done));
    this.#state.textContent = runs ? `${this.#done} of ${this.#wanted}${this.#done > 0 ? `, ${time(left_s)} left` : ""}` : "";
  }
}

/** @param {number} seconds */
const time = (seconds) => (seconds < 90 ? `${seconds} s` : `${Math.round(seconds / 60)} min`);
