// The words of the prompt as a row: drag one sideways to weigh it, press it to swap it or see others side by side.

import { button, html, input, make, mark, style } from "./dom.js";
import { alternatives, isPlain, withOther, withWeight, words } from "./words.js";

/** @import { Word } from "./words.js" */

const STEP = 0.05;
/** Weight of one pixel of drag. */
const PER_PX = 0.01;
/** Beside the word itself, of which the grid shows as many as it has room for. */
const ALTERNATIVES = 15;

/**
 * @typedef {object} RailHost
 * @property {() => string} prompt
 * @property {(prompt: string) => void} change
 * @property {(word: string, prompts: {label: string, prompt: string}[]) => void} sideBySide
 */

export class Rail {
  #box = html("rail");
  #toggle = button("weigh");
  #popover = html("swap");
  /** @type {RailHost} */
  #host;
  /** Index of the word that the popover is about. */
  #chosen = -1;

  /** @param {RailHost} host */
  constructor(host) {
    this.#host = host;
    this.#toggle.addEventListener("click", () => this.toggle());
    button("swap-close").addEventListener("click", () => this.close());
    button("swap-side").addEventListener("click", () => this.#sideBySide());
    input("swap-own").addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.#sideBySide();
    });
    input("swap-weight").addEventListener("input", () => this.#weigh(this.#chosen, input("swap-weight").valueAsNumber));
    this.#popover.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.close(true);
      event.stopPropagation();
    });
    document.addEventListener("pointerdown", (event) => {
      if (!(event.target instanceof Node) || this.#popover.contains(event.target) || this.#box.contains(event.target)) return;
      this.close();
    });
  }

  toggle() {
    this.#box.hidden = !this.#box.hidden;
    mark(this.#toggle, "aria-pressed", !this.#box.hidden);
    this.close();
    this.refresh();
  }

  /** Shows the prompt as it is now; keeps the focus on the same word. */
  refresh() {
    if (this.#box.hidden) return;
    const found = words(this.#host.prompt());
    const children = [...this.#box.children];
    if (children.length === found.length) {
      found.forEach((word, i) => children[i] instanceof HTMLElement && this.#label(children[i], word));
      return;
    }
    this.#box.replaceChildren(...found.map((word, i) => this.#chip(word, i)));
    this.close();
  }

  /**
   * @param {Word} word
   * @param {number} index
   */
  #chip(word, index) {
    const chip = make("button", { type: "button", className: "word" });
    this.#label(chip, word);
    let from = { x: 0, weight: 1, moved: false };
    chip.addEventListener("pointerdown", (event) => {
      from = { x: event.clientX, weight: this.#word(index)?.weight ?? 1, moved: false };
      chip.setPointerCapture(event.pointerId);
    });
    chip.addEventListener("pointermove", (event) => {
      if (!chip.hasPointerCapture(event.pointerId)) return;
      const dx = event.clientX - from.x;
      if (Math.abs(dx) < 4 && !from.moved) return;
      from.moved = true;
      this.#weigh(index, snap(from.weight + dx * PER_PX));
    });
    chip.addEventListener("click", () => {
      if (!from.moved) this.#open(index, chip);
      from.moved = false;
    });
    chip.addEventListener("keydown", (event) => {
      const by = { ArrowRight: STEP, ArrowUp: STEP, ArrowLeft: -STEP, ArrowDown: -STEP }[event.key];
      if (by === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      this.#weigh(index, (this.#word(index)?.weight ?? 1) + by);
    });
    return chip;
  }

  /**
   * @param {HTMLElement} chip
   * @param {Word} word
   */
  #label(chip, word) {
    const weight = word.weight === 1 ? "" : word.weight.toFixed(2);
    chip.replaceChildren(make("b", {}, word.text), make("i", {}, weight));
    chip.setAttribute("aria-label", `${word.text}, weight ${word.weight.toFixed(2)}`);
    chip.dataset.plain = String(isPlain(word.text) && word.weight === 1);
    style(chip, { weight: Math.min(word.weight, 2) });
  }

  /** @param {number} index */
  #word(index) {
    return words(this.#host.prompt())[index];
  }

  /**
   * @param {number} index
   * @param {number} weight
   */
  #weigh(index, weight) {
    const word = this.#word(index);
    if (!word) return;
    this.#host.change(withWeight(this.#host.prompt(), word, weight));
    this.#showWeight(index);
  }

  /** @param {number} index */
  #showWeight(index) {
    const weight = this.#word(index)?.weight ?? 1;
    input("swap-weight").value = String(weight);
    html("swap-weight-value").textContent = weight.toFixed(2);
  }

  /**
   * @param {number} index
   * @param {HTMLElement} chip
   */
  #open(index, chip) {
    const word = this.#word(index);
    if (!word) return;
    this.#chosen = index;
    html("swap-title").textContent = word.text;
    this.#showWeight(index);
    const others = alternatives(word.text, ALTERNATIVES).map((other) => {
      const choice = make("button", { type: "button" }, other);
      choice.addEventListener("click", () => this.#swap(other));
      return choice;
    });
    html("swap-words").replaceChildren(...others);
    input("swap-own").value = "";
    this.#popover.hidden = false;
    this.#place(chip);
    (others[0] ?? input("swap-own")).focus({ preventScroll: true });
  }

  /** @param {HTMLElement} chip */
  #place(chip) {
    const at = chip.getBoundingClientRect();
    const box = this.#popover.getBoundingClientRect();
    // Beside the picture if there is room, so that it is seen while it changes; else at the word.
    const picture = html("picture-frame").getBoundingClientRect();
    const beside = picture.left - box.width - 20;
    const left = beside > 12 ? beside : Math.min(Math.max(at.left + at.width / 2 - box.width / 2, 16), innerWidth - box.width - 16);
    const above = beside > 12 ? Math.max(picture.bottom - box.height, 12) : at.top - box.height - 10;
    this.#popover.style.left = `${left + scrollX}px`;
    this.#popover.style.top = `${(above > 8 ? above : at.bottom + 10) + scrollY}px`;
  }

  /** @param {string} other */
  #swap(other) {
    const word = this.#word(this.#chosen);
    if (!word) return;
    this.#host.change(withOther(this.#host.prompt(), word, other));
    html("swap-title").textContent = other;
  }

  #sideBySide() {
    const word = this.#word(this.#chosen);
    if (!word) return;
    const own = input("swap-own").value.split(",").map((text) => text.trim()).filter(Boolean);
    const others = [...new Set([word.text, ...own, ...alternatives(word.text, ALTERNATIVES)])].slice(0, ALTERNATIVES + 1);
    if (others.length < 2) return input("swap-own").focus();
    const prompt = this.#host.prompt();
    this.#host.sideBySide(word.text, others.map((label) => ({ label, prompt: withOther(prompt, word, label) })));
    this.close();
  }

  /** @param {boolean} [back] give the focus back to the word */
  close(back = false) {
    if (this.#popover.hidden) return;
    this.#popover.hidden = true;
    const chip = this.#box.children[this.#chosen];
    if (back && chip instanceof HTMLElement) chip.focus();
  }
}

/** Near 1 a drag holds, so that it is easy to go back to. */
/** @param {number} weight */
function snap(weight) {
  return Math.abs(weight - 1) < 0.04 ? 1 : Math.round(weight / STEP) * STEP;
}
