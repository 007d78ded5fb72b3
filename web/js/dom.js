// Small helpers around the document.

/**
 * The element with this id, which must be of this class.
 * @template {Element} T
 * @param {string} id
 * @param {new () => T} kind
 * @returns {T}
 */
export function byId(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`the page has no ${kind.name} #${id}`);
  return found;
}

/** @param {string} id */
export const button = (id) => byId(id, HTMLButtonElement);
/** @param {string} id */
export const input = (id) => byId(id, HTMLInputElement);
/** @param {string} id */
export const canvas = (id) => byId(id, HTMLCanvasElement);
/** @param {string} id */
export const html = (id) => byId(id, HTMLElement);

/**
 * A new element with properties, `aria-*` and `data-*` attributes, and children.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, string | number | boolean>} [properties]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") element.setAttribute(name, String(value));
    else Reflect.set(element, name, value);
  }
  element.append(...children);
  return element;
}

/**
 * @param {HTMLCanvasElement | OffscreenCanvas} surface
 * @param {CanvasRenderingContext2DSettings} [options]
 * @returns {CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D}
 */
export function context2d(surface, options) {
  const context = /** @type {CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D | null} */ (
    surface.getContext("2d", options)
  );
  if (!context) throw new Error("this browser gives no 2D canvas");
  return context;
}

/**
 * @param {Element} element
 * @param {string} state for instance "aria-pressed"
 * @param {boolean} on
 */
export function mark(element, state, on) {
  element.setAttribute(state, String(on));
}

/**
 * @param {HTMLElement} element
 * @param {Record<string, string | number>} values custom properties, without the dashes
 */
export function style(element, values) {
  for (const [name, value] of Object.entries(values)) element.style.setProperty(`--${name}`, String(value));
}

/**
 * Lets the browser save a file.
 * @param {Blob} blob
 * @param {string} name
 */
export function download(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/**
 * The file a person picks with a file input, once for each change.
 * @param {string} id
 * @param {(file: File) => void} then
 */
export function onFile(id, then) {
  const field = input(id);
  field.addEventListener("change", () => {
    const file = field.files?.[0];
    field.value = "";
    if (file) then(file);
  });
  return () => field.click();
}

/**
 * A field for a seed: digits alone, told at each change; null where there are none.
 * @param {HTMLInputElement} field
 * @param {(seed: number | null) => void} then
 */
export function onSeed(field, then) {
  field.addEventListener("input", () => {
    const digits = field.value.replace(/\D/g, "").slice(0, 15);
    field.value = digits;
    then(digits ? Number(digits) : null);
  });
}

/** @param {unknown} reason what was thrown */
export const why = (reason) => (reason instanceof Error ? reason.message : String(reason));

/** @param {string} text for file names: letters, digits and dashes, short */
export function slug(text) {
  const short = text.toLowerCase().replace(/[^\p{Letter}\p{Number}]+/gu, "-").replace(/^-|-$/g, "");
  return short.slice(0, 48) || "picture";
}
