// The WebSocket to the server: it reconnects by itself, and says what arrives as callbacks.

import { pack, unpack } from "./wire.js";

/** @import { Hello, Frame, FrameHeader, Loading, Sensitivity, ServerError } from "./types.js" */

const FIRST_WAIT_MS = 400;
const LONGEST_WAIT_MS = 15_000;
const PING_EVERY_MS = 20_000;
/** Close codes after which trying again at once would get the same answer. */
const REFUSED = 1008;
const TOO_MANY = 1013;

/**
 * @typedef {object} Listener
 * @property {() => void} opened
 * @property {(hello: Hello) => void} hello
 * @property {(message: Loading) => void} loading while a model is read
 * @property {(frame: Frame) => void} frame
 * @property {(message: Sensitivity) => void} sensitivity
 * @property {(message: ServerError) => void} error
 * @property {(state: {reason: string, code: number, retry_ms: number | null}) => void} closed
 */

export class Live {
  /** @type {WebSocket | null} */
  #socket = null;
  #wait_ms = FIRST_WAIT_MS;
  /** @type {number | undefined} */
  #timer;
  /** @type {Listener} */
  #listener;
  #ping = 0;
  /** Ends what is listened to and repeated. */
  #whole = new AbortController();

  /** @param {Listener} listener */
  constructor(listener) {
    this.#listener = listener;
    const { signal } = this.#whole;
    addEventListener("online", () => this.connect(), { signal });
    document.addEventListener(
      "visibilitychange",
      () => {
        if (!document.hidden && !this.open) this.connect();
      },
      { signal },
    );
    const pings = setInterval(() => this.send({ type: "ping", id: ++this.#ping }), PING_EVERY_MS);
    signal.addEventListener("abort", () => clearInterval(pings));
  }

  get open() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  /** For good. */
  close() {
    this.#whole.abort();
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  /** Connects now, if there is no connection. */
  connect() {
    clearTimeout(this.#timer);
    if (this.#socket && this.#socket.readyState <= WebSocket.OPEN) return;
    const socket = new WebSocket(address());
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.#listener.opened();
    socket.onmessage = (event) => {
      if (this.#socket === socket) this.#receive(event.data);
    };
    socket.onclose = (event) => this.#closed(socket, event);
    this.#socket = socket;
  }

  /**
   * @param {object} message
   * @param {Uint8Array} [image] a PNG, JPEG or WebP to start from
   * @returns {boolean} whether there was a connection to send it on
   */
  send(message, image) {
    if (!this.#socket || !this.open) return false;
    this.#socket.send(image ? pack(message, image) : JSON.stringify(message));
    return true;
  }

  /** @param {string | ArrayBuffer} data */
  #receive(data) {
    const at = performance.now();
    const { header, payload } =
      typeof data === "string" ? { header: JSON.parse(data), payload: null } : unpack(data);
    const message = /** @type {Hello | Loading | FrameHeader | Sensitivity | ServerError | {type: "pong"}} */ (header);
    switch (message.type) {
      case "hello":
        this.#wait_ms = FIRST_WAIT_MS;
        return this.#listener.hello(message);
      case "loading":
        return this.#listener.loading(message);
      case "frame":
        if (payload) this.#listener.frame({ header: message, blob: new Blob([payload], { type: `image/${message.format}` }), at });
        return;
      case "sensitivity":
        return this.#listener.sensitivity(message);
      case "error":
        return this.#listener.error(message);
    }
  }

  /**
   * @param {WebSocket} socket
   * @param {CloseEvent} event
   */
  #closed(socket, event) {
    if (this.#socket !== socket) return;
    this.#socket = null;
    const refused = event.code === REFUSED;
    if (event.code === TOO_MANY) this.#wait_ms = Math.max(this.#wait_ms, 4000);
    const retry_ms = refused ? null : Math.round(this.#wait_ms * (0.75 + Math.random() / 2));
    if (retry_ms !== null) this.#timer = setTimeout(() => this.connect(), retry_ms);
    this.#wait_ms = Math.min(this.#wait_ms * 2, LONGEST_WAIT_MS);
    this.#listener.closed({ reason: event.reason, code: event.code, retry_ms });
  }
}

/**
 * A path below the page's own, with the token if the page was opened with one.
 * @param {string} path
 */
export function withToken(path) {
  const url = new URL(path, location.href);
  const token = new URL(location.href).searchParams.get("token");
  url.hash = "";
  url.search = token ? `?token=${encodeURIComponent(token)}` : "";
  return url;
}

function address() {
  const url = withToken("live");
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  return url;
}
