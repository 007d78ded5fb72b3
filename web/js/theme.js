// Light, dark, or as the system says.

import { button } from "./dom.js";

/** @typedef {"auto" | "light" | "dark"} Theme */

const KEY = "prima.theme";
/** @type {Record<Theme, Theme>} */
const AFTER = { auto: "light", light: "dark", dark: "auto" };
const NAMES = { auto: "as the system", light: "light", dark: "dark" };
const system = matchMedia("(prefers-color-scheme: dark)");
/** @type {Theme} */
let chosen = read();

function read() {
  const saved = remembered(KEY);
  return saved === "light" || saved === "dark" ? saved : "auto";
}

function apply() {
  const dark = chosen === "dark" || (chosen === "auto" && system.matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  document.querySelector('meta[name="theme-color"]')?.setAttribute("content", dark ? "#161616" : "#f3f2ef");
  button("theme").setAttribute("aria-label", `Theme: ${NAMES[chosen]}`);
  button("theme").title = `Theme: ${NAMES[chosen]}`;
}

export function nextTheme() {
  chosen = AFTER[chosen];
  remember(KEY, chosen);
  apply();
  return NAMES[chosen];
}

/**
 * Storage may be switched off; the page works without.
 * @param {string} key
 */
export function remembered(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

/**
 * @param {string} key
 * @param {string} value
 */
export function remember(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    // Nothing to do: the choice lasts as long as the page.
  }
}

export function startTheme() {
  apply();
  system.addEventListener("change", apply);
  button("theme").addEventListener("click", nextTheme);
}
