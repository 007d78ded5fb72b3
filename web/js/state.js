// The settings of the picture: one store, and its form in a link.

/** @import { Region, Settings } from "./types.js" */

export const DEFAULT_PROMPT = "a red apple on a light blue background";

/** @type {Settings} */
export const DEFAULTS = Object.freeze({
  prompt: DEFAULT_PROMPT,
  negative_prompt: "",
  seed: 1,
  steps: null,
  guidance_scale: null,
  width: null,
  height: null,
  strength: null,
  loras: Object.freeze({}),
  blend_prompt: "",
  blend_seed: null,
  blend_share: null,
  regions: Object.freeze([]),
});

/** Where a change came from: typing keeps the caret alone, everything else rewrites the fields. */
/** @typedef {"typing" | "control" | "restore"} Cause */

export class Store {
  /** @type {Settings} */
  #now;
  /** @type {Set<(now: Settings, cause: Cause) => void>} */
  #listeners = new Set();

  /** @param {Settings} first */
  constructor(first) {
    this.#now = first;
  }

  get now() {
    return this.#now;
  }

  /**
   * @param {Partial<Settings>} patch
   * @param {Cause} cause
   */
  set(patch, cause) {
    const next = { ...this.#now, ...patch };
    if (same(next, this.#now)) return;
    this.#now = next;
    for (const listener of this.#listeners) listener(next, cause);
  }

  /** @param {(now: Settings, cause: Cause) => void} listener */
  onChange(listener) {
    this.#listeners.add(listener);
  }
}

/**
 * @param {Settings} a
 * @param {Settings} b
 */
export function same(a, b) {
  return JSON.stringify(toLink(a)) === JSON.stringify(toLink(b)) && a.strength === b.strength;
}

export function randomSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
}

/** Link keys, in the order in which they are written. */
/** @type {ReadonlyArray<readonly [keyof Settings, string]>} */
const KEYS = [
  ["prompt", "prompt"],
  ["negative_prompt", "negative"],
  ["seed", "seed"],
  ["steps", "steps"],
  ["guidance_scale", "guidance"],
  ["width", "w"],
  ["height", "h"],
  ["blend_prompt", "blend"],
  ["blend_seed", "blend_seed"],
  ["blend_share", "blend_share"],
];

/**
 * @param {Settings} settings
 * @returns {string} the part of a link after `#`
 */
export function toLink(settings) {
  const query = new URLSearchParams();
  for (const [field, key] of KEYS) {
    const value = settings[field];
    if (value !== null && value !== "") query.set(key, String(value));
  }
  if (settings.prompt === "") query.set("prompt", "");
  for (const [name, weight] of Object.entries(settings.loras)) query.append("lora", `${name}:${weight}`);
  for (const { prompt, area } of settings.regions) query.append("region", `${area.join(",")}:${prompt}`);
  return query.toString();
}

/**
 * What a link says; what it does not say, or says wrongly, is left out.
 * @param {string} fragment with or without `#`
 * @returns {Partial<Settings>}
 */
export function fromLink(fragment) {
  const query = new URLSearchParams(fragment.replace(/^#/, ""));
  const loras = query.getAll("lora").map((text) => [text.slice(0, text.lastIndexOf(":")), text.slice(text.lastIndexOf(":") + 1)]);
  const regions = query.getAll("region").map((text) => {
    const [area = "", ...prompt] = text.split(":");
    return { prompt: prompt.join(":"), area: area.split(",").map(Number) };
  });
  return fromUnknown({ ...Object.fromEntries(KEYS.map(([field, key]) => [field, query.get(key)])), loras: Object.fromEntries(loras), regions });
}

/**
 * Settings from text that others wrote: each field is kept if it is of the right kind.
 * @param {Record<string, unknown>} found
 * @returns {Partial<Settings>}
 */
export function fromUnknown(found) {
  /** @type {Partial<Settings>} */
  const settings = {};
  if (typeof found.prompt === "string") settings.prompt = found.prompt;
  if (typeof found.negative_prompt === "string") settings.negative_prompt = found.negative_prompt;
  const seed = number(found.seed, 0, Number.MAX_SAFE_INTEGER);
  if (seed !== null) settings.seed = Math.floor(seed);
  const steps = number(found.steps, 1, 1000);
  if (steps !== null) settings.steps = Math.floor(steps);
  const guidance = number(found.guidance_scale, 0, 100);
  if (guidance !== null) settings.guidance_scale = guidance;
  const width = number(found.width, 8, 4096);
  const height = number(found.height, 8, 4096);
  if (width !== null && height !== null) Object.assign(settings, { width: Math.floor(width), height: Math.floor(height) });
  const strength = number(found.strength, 0, 1);
  if (strength !== null) settings.strength = strength;
  if (typeof found.blend_prompt === "string") settings.blend_prompt = found.blend_prompt;
  const other = number(found.blend_seed, 0, Number.MAX_SAFE_INTEGER);
  if (other !== null) settings.blend_seed = Math.floor(other);
  const share = number(found.blend_share, 0, 1);
  if (share !== null) settings.blend_share = share;
  const regions = Array.isArray(found.regions) ? found.regions.filter(isRegion) : [];
  if (regions.length > 0) settings.regions = regions;
  /** @type {Record<string, number>} */
  const loras = {};
  for (const [name, text] of Object.entries(found.loras ?? {})) {
    const weight = number(text, -10, 10);
    if (name && weight !== null) loras[name] = weight;
  }
  if (Object.keys(loras).length > 0) settings.loras = loras;
  return settings;
}

/**
 * @param {any} found
 * @returns {found is Region}
 */
function isRegion(found) {
  const area = found?.area;
  if (typeof found?.prompt !== "string" || !Array.isArray(area) || area.length !== 4) return false;
  return area.every((side) => number(side, 0, 1) !== null) && area[0] < area[2] && area[1] < area[3];
}

/**
 * @param {unknown} value
 * @param {number} least
 * @param {number} most
 */
function number(value, least, most) {
  if (value === null || value === undefined || value === "") return null;
  const n = Number(value);
  return Number.isFinite(n) && n >= least && n <= most ? n : null;
}
