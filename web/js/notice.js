// What the page says: the error bar, short notes, and the live region for screen readers.

import { button, html } from "./dom.js";

const bar = html("bar");
const action = button("bar-action");
const toast = html("toast");
const live = html("live");
/** @type {(() => void) | null} */
let act = null;
/** @type {string | null} */
let kind = null;
/** @type {number | undefined} */
let toastTimer;
/** @type {number | undefined} */
let liveTimer;

/**
 * Shows what happened and what to do.
 * @param {string} message
 * @param {string} [hint]
 * @param {{label: string, run: () => void}} [remedy]
 * @param {string} [id] errors of one kind replace each other and are cleared together
 */
export function error(message, hint = "", remedy, id = "request") {
  html("bar-message").textContent = message;
  html("bar-hint").textContent = hint;
  action.hidden = !remedy;
  action.textContent = remedy?.label ?? "";
  act = remedy?.run ?? null;
  kind = id;
  bar.hidden = false;
}

/** @param {string} [id] only an error of this kind */
export function clearError(id) {
  if (id && id !== kind) return;
  bar.hidden = true;
  kind = null;
}

action.addEventListener("click", () => act?.());
button("bar-close").addEventListener("click", () => clearError());

/** @param {string} text */
export function note(text) {
  toast.textContent = text;
  toast.hidden = false;
  say(text);
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (toast.hidden = true), 2600);
}

/**
 * To screen readers, once things are quiet.
 * @param {string} text
 */
export function say(text) {
  clearTimeout(liveTimer);
  liveTimer = setTimeout(() => (live.textContent = text), 700);
}
