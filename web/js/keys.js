// Everything by keyboard: single keys outside of text fields, a few chords inside, and the help that lists them.

import { byId, button, html, input, make } from "./dom.js";
import { remember, remembered } from "./theme.js";

/** @typedef {{key: string, says: string, run: () => void}} Shortcut */

const KEY = "prima.single-keys";

/**
 * @param {Shortcut[]} shortcuts single keys
 * @param {{says: [string, string][], anotherSeed: () => void, enter: () => void, undo: () => void, redo: () => void}} chords
 */
export function startKeys(shortcuts, chords) {
  const help = byId("help", HTMLDialogElement);
  const single = input("single-keys");
  single.checked = remembered(KEY) !== "off";
  single.addEventListener("change", () => remember(KEY, single.checked ? "on" : "off"));
  button("help-open").addEventListener("click", () => help.showModal());
  const all = [...shortcuts, { key: "?", says: "this list", run: () => help.showModal() }];
  const rows = [...all.map(({ key, says }) => /** @type {[string, string]} */ ([key, says])), ...chords.says];
  html("help-keys").replaceChildren(
    ...rows.map(([key, says]) => make("div", {}, make("dt", {}, says), make("dd", {}, make("kbd", {}, key)))),
  );

  document.addEventListener("keydown", (event) => {
    if (help.open || event.isComposing) return;
    const target = event.target;
    const writing = target instanceof HTMLTextAreaElement || (target instanceof HTMLInputElement && target.type !== "range");
    const chord = event.ctrlKey || event.metaKey;
    if (event.key === "Escape" && target instanceof HTMLElement) return target.blur();
    if (event.key === "Enter" && target instanceof HTMLTextAreaElement && target.id === "prompt") {
      event.preventDefault();
      return chord ? chords.anotherSeed() : chords.enter();
    }
    if (chord && !writing && event.key.toLowerCase() === "z") {
      event.preventDefault();
      return event.shiftKey ? chords.redo() : chords.undo();
    }
    if (writing || chord || event.altKey || !single.checked) return;
    const found = all.find(({ key }) => key === event.key || (key.length === 1 && key === event.key.toLowerCase() && !event.shiftKey));
    if (!found) return;
    event.preventDefault();
    found.run();
  });
}
