// PNG files: exact pixels (for the replay's hashes), and the settings that a saved picture carries.

import { withToken } from "./live.js";
import { fromUnknown } from "./state.js";

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];

/** @typedef {{width: number, height: number, rgb: Uint8Array}} Pixels */

/**
 * The pixels of an 8-bit RGB PNG, as the server writes them. Decoded here and not by a canvas,
 * which may manage colours or add noise against fingerprinting.
 * @param {Blob} blob
 * @returns {Promise<Pixels>}
 */
export async function decodePng(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  if (SIGNATURE.some((byte, i) => bytes[i] !== byte)) throw new Error("this is not a PNG file");
  const view = new DataView(bytes.buffer);
  const [width, height] = [view.getUint32(16), view.getUint32(20)];
  if (bytes[24] !== 8 || bytes[25] !== 2 || bytes[28] !== 0) throw new Error("this PNG is not plain 8-bit RGB");
  const parts = [];
  for (let at = 8; at + 12 <= bytes.length; at += 12 + view.getUint32(at)) {
    if (view.getUint32(at + 4) === 0x49444154) parts.push(bytes.subarray(at + 8, at + 8 + view.getUint32(at)));
  }
  const unpacked = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  const lines = new Uint8Array(await new Response(unpacked).arrayBuffer());
  return { width, height, rgb: unfilter(lines, width * 3, height) };
}

/**
 * @param {Uint8Array} lines each of a filter byte and `stride` bytes
 * @param {number} stride
 * @param {number} height
 */
function unfilter(lines, stride, height) {
  const out = new Uint8Array(stride * height);
  for (let y = 0; y < height; y++) {
    const filter = lines[y * (stride + 1)] ?? 0;
    for (let x = 0; x < stride; x++) {
      const to = y * stride + x;
      const left = x >= 3 ? (out[to - 3] ?? 0) : 0;
      const up = y > 0 ? (out[to - stride] ?? 0) : 0;
      const corner = x >= 3 && y > 0 ? (out[to - stride - 3] ?? 0) : 0;
      out[to] = (lines[y * (stride + 1) + 1 + x] ?? 0) + predicted(filter, left, up, corner);
    }
  }
  return out;
}

/**
 * @param {number} filter
 * @param {number} left
 * @param {number} up
 * @param {number} corner
 */
function predicted(filter, left, up, corner) {
  if (filter === 1) return left;
  if (filter === 2) return up;
  if (filter === 3) return (left + up) >> 1;
  if (filter !== 4) return 0;
  const near = left + up - corner;
  const [dl, du, dc] = [Math.abs(near - left), Math.abs(near - up), Math.abs(near - corner)];
  if (dl <= du && dl <= dc) return left;
  return du <= dc ? up : corner;
}

/**
 * The settings in a picture that prima (or a tool with the same chunk) saved.
 * @param {Blob} file
 */
export async function readSettings(file) {
  const answer = await fetch(withToken("studio/read-png"), { method: "POST", body: file, headers: { "content-type": "image/png" } });
  const text = await answer.text();
  if (!answer.ok) throw new Error(sentence(text) || `The server could not read it (${answer.status}).`);
  return fromUnknown(JSON.parse(text));
}

/**
 * The sentence in an error's body: `{error: {message}}`, `{message}`, `{error}` or plain text.
 * @param {string} body
 * @returns {string}
 */
export function sentence(body) {
  try {
    const found = JSON.parse(body);
    const message = found?.error?.message ?? found?.message ?? found?.detail ?? found?.error;
    return typeof message === "string" ? message : "";
  } catch {
    return body.length < 300 ? body.trim() : "";
  }
}
