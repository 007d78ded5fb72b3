// Pictures to an animated GIF, which the server packs.

import { download } from "./dom.js";
import { withToken } from "./live.js";
import { note } from "./notice.js";
import { sentence } from "./png.js";

/** The server takes this many pictures in an animation; more are thinned. */
const MOST_FRAMES = 200;

/**
 * Packs pictures of one size and lets the browser save them.
 * @param {Blob[]} pictures
 * @param {number} delay_ms between two of them
 * @param {string} name of the file
 */
export async function saveGif(pictures, delay_ms, name) {
  const every = Math.ceil(pictures.length / MOST_FRAMES);
  const form = new FormData();
  form.set("delay_ms", String(delay_ms));
  pictures.filter((_, i) => i % every === 0).forEach((blob, i) => form.append("frame", blob, `${i}.png`));
  const answer = await fetch(withToken("studio/animation"), { method: "POST", body: form });
  if (!answer.ok) throw new Error(sentence(await answer.text()) || `The server answered ${answer.status}.`);
  download(await answer.blob(), name);
  note(`Saved ${name}`);
}
