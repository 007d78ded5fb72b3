// Binary messages of the live protocol: u32 little-endian header length, JSON header, picture.

/**
 * @param {object} header
 * @param {Uint8Array} payload
 */
export function pack(header, payload) {
  const json = new TextEncoder().encode(JSON.stringify(header));
  const bytes = new Uint8Array(4 + json.length + payload.length);
  new DataView(bytes.buffer).setUint32(0, json.length, true);
  bytes.set(json, 4);
  bytes.set(payload, 4 + json.length);
  return bytes;
}

/**
 * @param {ArrayBuffer} buffer
 * @returns {{header: unknown, payload: Uint8Array<ArrayBuffer>}}
 */
export function unpack(buffer) {
  if (buffer.byteLength < 4) throw new Error("a message of fewer than 4 bytes");
  const length = new DataView(buffer).getUint32(0, true);
  if (4 + length > buffer.byteLength) throw new Error("a message shorter than its header says");
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  return { header, payload: new Uint8Array(buffer, 4 + length) };
}
