// The prompt field, and the layer below its text that colours words.

import { byId, html, make, style } from "./dom.js";

/** @typedef {{start: number, end: number, share: number, title: string}} Highlight */

export class PromptField {
  #field = byId("prompt", HTMLTextAreaElement);
  #under = html("prompt-under");

  /** @param {(text: string, key_ms: number) => void} typed */
  constructor(typed) {
    this.#field.addEventListener("input", (event) => {
      this.#fit();
      this.highlight([]);
      typed(this.text, event.timeStamp);
    });
    this.#field.addEventListener("scroll", () => (this.#under.scrollTop = this.#field.scrollTop));
    // In the next frame: to change what is observed while it is observed is an error to browsers.
    new ResizeObserver(() => requestAnimationFrame(() => this.#fit())).observe(this.#field);
  }

  get element() {
    return this.#field;
  }

  /** Line breaks come by pasting; a prompt is one line. */
  get text() {
    return this.#field.value.replace(/\s*\n\s*/g, " ");
  }

  /** @param {string} text */
  set text(text) {
    if (this.#field.value === text) return;
    this.#field.value = text;
    this.highlight([]);
    this.#fit();
  }

  /** @param {number} most characters */
  limit(most) {
    this.#field.maxLength = most;
  }

  focus() {
    this.#field.focus();
    this.#field.setSelectionRange(this.#field.value.length, this.#field.value.length);
  }

  /** @param {Highlight[]} marks in order, apart from each other; none clears */
  highlight(marks) {
    const text = this.#field.value;
    const parts = [];
    let at = 0;
    for (const { start, end, share, title } of marks) {
      const span = make("span", { className: "warm", title }, text.slice(start, end));
      style(span, { share: share.toFixed(3) });
      parts.push(text.slice(at, start), span);
      at = end;
    }
    if (parts.length) parts.push(text.slice(at));
    this.#under.replaceChildren(...parts);
  }

  #fit() {
    this.#field.style.height = "auto";
    this.#field.style.height = `${this.#field.scrollHeight + 1}px`;
  }
}
