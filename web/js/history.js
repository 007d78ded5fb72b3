// Pictures of this session: undo, redo and the filmstrip.

import { button, html, make } from "./dom.js";
import { same } from "./state.js";

/** @import { Settings } from "./types.js" */

/** @typedef {{settings: Settings, url: string, item: HTMLLIElement}} Entry */

/** Older pictures leave the strip. */
const MOST = 80;
/** A picture enters the strip once it has stood this long: a pause, not a keystroke. */
const STANDS_MS = 700;

export class History {
  #strip = html("strip");
  #undo = button("undo");
  #redo = button("redo");
  /** @type {Entry[]} */
  #entries = [];
  #at = -1;
  /** @type {number | undefined} */
  #timer;
  #restore;
  #kept;

  /**
   * @param {(settings: Settings) => void} restore
   * @param {(settings: Settings, blob: Blob) => void} kept called when a picture enters the strip
   */
  constructor(restore, kept) {
    this.#restore = restore;
    this.#kept = kept;
    this.#undo.addEventListener("click", () => this.step(-1));
    this.#redo.addEventListener("click", () => this.step(1));
    this.#strip.addEventListener("keydown", (event) => this.#key(event));
  }

  /** The picture is changing: what was not kept yet is passed over. */
  touch() {
    clearTimeout(this.#timer);
  }

  /**
   * A finished picture; it is kept when it stands.
   * @param {Settings} settings
   * @param {Blob} blob
   */
  finished(settings, blob) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.keep(settings, blob), STANDS_MS);
  }

  /**
   * @param {Settings} settings
   * @param {Blob} blob
   */
  keep(settings, blob) {
    clearTimeout(this.#timer);
    const known = this.#entries.findIndex((entry) => same(entry.settings, settings));
    if (known >= 0) return this.#select(known);
    const url = URL.createObjectURL(blob);
    const label = `${settings.prompt || "no words"}, seed ${settings.seed}`;
    const open = make("button", { type: "button", title: label, "aria-label": label }, make("img", { src: url, alt: "" }));
    const entry = { settings, url, item: make("li", {}, open) };
    open.addEventListener("click", () => this.#go(this.#entries.indexOf(entry)));
    this.#entries.push(entry);
    this.#strip.append(entry.item);
    while (this.#entries.length > MOST) this.#dropFirst();
    this.#select(this.#entries.length - 1);
    this.#kept(settings, blob);
  }

  #dropFirst() {
    const first = this.#entries.shift();
    if (!first) return;
    first.item.remove();
    URL.revokeObjectURL(first.url);
    this.#at -= 1;
  }

  /** @param {-1 | 1} by */
  step(by) {
    this.#go(this.#at + by);
  }

  /** @param {number} index */
  #go(index) {
    const entry = this.#entries[index];
    if (!entry) return;
    this.#select(index);
    this.#restore(entry.settings);
  }

  /** @param {number} index */
  #select(index) {
    this.#at = index;
    this.#entries.forEach((entry, i) => {
      const open = entry.item.firstElementChild;
      if (i === index) open?.setAttribute("aria-current", "true");
      else open?.removeAttribute("aria-current");
      open?.setAttribute("tabindex", i === index ? "0" : "-1");
    });
    this.#undo.disabled = index <= 0;
    this.#redo.disabled = index >= this.#entries.length - 1;
    const item = this.#entries[index]?.item;
    if (item) this.#strip.scrollTo({ left: item.offsetLeft - this.#strip.clientWidth / 2, behavior: "smooth" });
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const to = { ArrowLeft: this.#at - 1, ArrowRight: this.#at + 1, Home: 0, End: this.#entries.length - 1 }[event.key];
    if (to === undefined || !this.#entries[to]) return;
    event.preventDefault();
    this.#go(to);
    const open = this.#entries[to].item.firstElementChild;
    if (open instanceof HTMLElement) open.focus();
  }
}
