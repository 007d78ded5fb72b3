// Which words matter: each word coloured by how much the picture changes without it.

import { button, html, mark } from "./dom.js";
import { say } from "./notice.js";

/** @import { Sensitivity, WordChange } from "./types.js" */
/** @import { PromptField } from "./prompt.js" */

export class SensitivityView {
  #toggle = button("sense");
  #text = html("sense-text");
  #field;
  #request;
  #prompt = "";

  /**
   * @param {PromptField} field
   * @param {(done: (message: Sensitivity) => void, failed: () => void) => boolean} request false without a connection
   */
  constructor(field, request) {
    this.#field = field;
    this.#request = request;
    this.#toggle.addEventListener("click", () => this.toggle());
  }

  get on() {
    return this.#toggle.getAttribute("aria-pressed") === "true";
  }

  toggle() {
    if (this.on) return this.clear();
    this.#prompt = this.#field.text;
    if (this.#prompt.trim() === "") return;
    if (!this.#request((message) => this.#show(message), () => this.clear())) return;
    mark(this.#toggle, "aria-pressed", true);
    mark(this.#toggle, "aria-busy", true);
    this.#say("Painting it once without each word …");
  }

  /** The prompt has changed: the colours no longer hold. */
  clear() {
    if (!this.on) return;
    mark(this.#toggle, "aria-pressed", false);
    mark(this.#toggle, "aria-busy", false);
    this.#field.highlight([]);
    this.#text.hidden = true;
  }

  /** @param {Sensitivity} message */
  #show(message) {
    if (!this.on || this.#prompt !== this.#field.text) return;
    mark(this.#toggle, "aria-busy", false);
    const most = Math.max(...message.words.map((word) => word.change), 1e-6);
    const marks = message.words.map((word) => {
      const { start, end } = inUnits(this.#prompt, word);
      return { start, end, share: 0.9 * (word.change / most) ** 0.8, title: `${word.word}: ${percent(word.change)}` };
    });
    this.#field.highlight(marks.sort((a, b) => a.start - b.start));
    const order = [...message.words].sort((a, b) => b.change - a.change);
    const list = order.slice(0, 3).map((word) => `${word.word} ${percent(word.change)}`);
    this.#say(list.length ? `Without the word, the picture changes by: ${list.join(", ")}` : "There is no word to leave out.");
    say(this.#text.textContent ?? "");
  }

  /** @param {string} text */
  #say(text) {
    this.#text.textContent = text;
    this.#text.hidden = false;
  }
}

/** @param {number} change */
const percent = (change) => `${(change * 100).toFixed(1)}\u00a0%`;

/**
 * The server counts characters, a textarea counts UTF-16 units.
 * @param {string} prompt
 * @param {WordChange} word
 */
export function inUnits(prompt, word) {
  const characters = Array.from(prompt);
  const start = characters.slice(0, word.start).join("").length;
  return { start, end: start + characters.slice(word.start, word.end).join("").length };
}
