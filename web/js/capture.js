// Camera and screen as moving grounds for the sketch.

import { byId } from "./dom.js";

/** @typedef {"camera" | "screen"} Source */

export class Capture {
  #video = byId("video", HTMLVideoElement);
  /** @type {MediaStream | null} */
  #stream = null;
  /** @type {Source | null} */
  source = null;
  #ended;

  /** @param {() => void} ended the person or the system stopped it */
  constructor(ended) {
    this.#ended = ended;
  }

  /**
   * @param {Source} source
   * @throws {Error} a sentence that says why there is none
   */
  async start(source) {
    this.stop();
    const devices = navigator.mediaDevices;
    const ask = source === "camera" ? devices?.getUserMedia : devices?.getDisplayMedia;
    if (!ask) throw new Error(`This browser gives a page no ${source} here. It needs https, or a page from localhost.`);
    const wanted = source === "camera" ? { video: { width: { ideal: 640 }, facingMode: "user" } } : { video: true };
    try {
      this.#stream = await ask.call(devices, { ...wanted, audio: false });
    } catch (error) {
      const denied = error instanceof DOMException && error.name === "NotAllowedError";
      throw new Error(denied ? `The ${source} was not allowed.` : `No ${source} could be opened (${error}).`);
    }
    this.source = source;
    this.#stream.getVideoTracks()[0]?.addEventListener("ended", () => this.#ended());
    this.#video.srcObject = this.#stream;
    this.#video.hidden = false;
    await this.#video.play();
  }

  stop() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#stream = null;
    this.source = null;
    this.#video.srcObject = null;
    this.#video.hidden = true;
  }

  /**
   * Draws the present frame, cut to fill; the camera is mirrored, as a mirror is.
   * @param {CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D} context
   * @param {number} width
   * @param {number} height
   */
  draw(context, width, height) {
    const { videoWidth, videoHeight } = this.#video;
    if (!videoWidth) return;
    const scale = Math.max(width / videoWidth, height / videoHeight);
    const [w, h] = [videoWidth * scale, videoHeight * scale];
    context.save();
    if (this.source === "camera") {
      context.translate(width, 0);
      context.scale(-1, 1);
    }
    context.drawImage(this.#video, (width - w) / 2, (height - h) / 2, w, h);
    context.restore();
  }
}
