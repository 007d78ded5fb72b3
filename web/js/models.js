// Which model paints: the list of the server's, and how far another one is read.

import { byId, html, make } from "./dom.js";

/** @import { Hello, Loading } from "./types.js" */

const GIB = 2 ** 30;

export class Models {
  #list = byId("model", HTMLSelectElement);
  #progress = byId("model-progress", HTMLProgressElement);
  /** What was chosen here; null leaves it to the server. */
  /** @type {string | null} */
  #wanted = null;
  #chosen = "";
  #send;

  /** @param {(name: string) => void} send asks the server for a model */
  constructor(send) {
    this.#send = send;
    this.#list.addEventListener("change", () => {
      this.#wanted = this.#list.value;
      this.#say("asked for");
      this.#send(this.#wanted);
    });
  }

  /** A new connection knows nothing of what was chosen. */
  restore() {
    if (this.#wanted !== null) this.#send(this.#wanted);
  }

  /**
   * @param {Hello} hello
   * @returns {boolean} whether it is about another model than the one before
   */
  show({ models, chosen }) {
    const other = this.#chosen !== "" && this.#chosen !== chosen;
    this.#chosen = chosen;
    this.#list.replaceChildren(...models.map((name) => make("option", { value: name }, name)));
    this.#list.value = this.#wanted ?? chosen;
    html("model-group").hidden = models.length < 2;
    if (this.#wanted === null || this.#wanted === chosen) this.#say("");
    return other;
  }

  /** @param {Loading} loading */
  loading({ part, bytes, total }) {
    this.#progress.hidden = false;
    if (total > 0) this.#progress.value = bytes / total;
    else this.#progress.removeAttribute("value");
    const size = total >= GIB / 10 ? ` of ${(total / GIB).toFixed(1)} GB` : "";
    html("model-state").textContent = part ? `reading ${part}${size}` : "reading";
  }

  /**
   * The server refused the last wish.
   * @returns {boolean} whether there was one
   */
  failed() {
    if (this.#wanted === null || this.#wanted === this.#chosen) return false;
    this.#wanted = null;
    this.#list.value = this.#chosen;
    this.#say("");
    return true;
  }

  /** @param {string} text */
  #say(text) {
    html("model-state").textContent = text;
    this.#progress.hidden = true;
  }
}
