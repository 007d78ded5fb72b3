// Pictures as an animated GIF, which the server packs, or as a WebM video, which the browser does.

import { context2d, download, make } from "./dom.js";
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

const WEBM = "video/webm";
const WEBM_BITS_PER_S = 8_000_000;

export const canWebm = () => typeof MediaRecorder !== "undefined" && MediaRecorder.isTypeSupported(WEBM);

/**
 * Films pictures of one size, which takes as long as the film, and lets the browser save it.
 * @param {Blob[]} pictures
 * @param {number} delay_ms between two of them
 * @param {string} name of the file
 */
export async function saveWebm(pictures, delay_ms, name) {
  const frames = await Promise.all(pictures.map((blob) => createImageBitmap(blob)));
  const [first] = frames;
  if (!first) return;
  const surface = make("canvas", { width: first.width, height: first.height });
  const context = context2d(surface);
  context.drawImage(first, 0, 0);
  const recorder = new MediaRecorder(surface.captureStream(), { mimeType: WEBM, videoBitsPerSecond: WEBM_BITS_PER_S });
  /** @type {Blob[]} */
  const parts = [];
  recorder.ondataavailable = ({ data }) => parts.push(data);
  const ended = new Promise((resolve, reject) => {
    recorder.onstop = resolve;
    recorder.onerror = () => reject(new Error("The browser could not film it."));
  });
  recorder.start();
  for (const frame of frames) {
    context.drawImage(frame, 0, 0);
    frame.close();
    await new Promise((resolve) => setTimeout(resolve, delay_ms));
  }
  recorder.stop();
  await ended;
  download(new Blob(parts, { type: WEBM }), name);
  note(`Saved ${name}`);
}
