// On the way to another prompt, another seed or both: a slider, and the way there and back as a GIF or a film.

import { canWebm, saveGif, saveWebm } from "./animation.js";
import { button, html, input, onSeed, why } from "./dom.js";
import { randomSeed } from "./state.js";

/** @import { Settings } from "./types.js" */

/** Pictures of the way there; the way back shows them again. */
const FRAMES = 16;
const DELAY_MS = 90;

/**
 * What a request says of it.
 * @param {Settings} settings
 * @returns {{share: number, prompt?: string, seed?: number} | undefined}
 */
export function blendOf({ blend_prompt, blend_seed, blend_share }) {
  if (!blend_share || (blend_prompt === "" && blend_seed === null)) return undefined;
  return { share: blend_share, ...(blend_prompt && { prompt: blend_prompt }), ...(blend_seed !== null && { seed: blend_seed }) };
}

export class BlendTools {
  #prompt = input("blend-prompt");
  #seed = input("blend-seed");
  #share = input("blend-share");
  #loops = [
    { button: button("blend-loop"), save: saveGif, name: "prima-loop.gif" },
    { button: button("blend-film"), save: saveWebm, name: "prima-loop.webm" },
  ];
  #stop = false;
  #running = false;
  #host;

  /**
   * @param {object} host
   * @param {() => Settings} host.settings
   * @param {(patch: Partial<Settings>) => void} host.set
   * @param {(settings: Settings) => Promise<Blob>} host.paint paints to the end
   * @param {() => void} host.ended the page's own picture is due again
   * @param {(message: string, hint: string) => void} host.failed
   */
  constructor(host) {
    this.#host = host;
    /** Whoever names another end of the way wants to see some of it. @param {Partial<Settings>} patch */
    const set = (patch) => host.set({ ...patch, blend_share: host.settings().blend_share || 0.5 });
    this.#prompt.addEventListener("input", () => set({ blend_prompt: this.#prompt.value }));
    onSeed(this.#seed, (blend_seed) => set({ blend_seed }));
    button("blend-dice").addEventListener("click", () => set({ blend_seed: randomSeed() }));
    this.#share.addEventListener("input", () => host.set({ blend_share: this.#share.valueAsNumber || null }));
    button("blend-clear").addEventListener("click", () => host.set({ blend_prompt: "", blend_seed: null, blend_share: null }));
    button("blend-film").hidden = !canWebm();
    for (const loop of this.#loops) loop.button.addEventListener("click", () => (this.#running ? this.stop() : void this.#play(loop)));
  }

  get running() {
    return this.#running;
  }

  stop() {
    this.#stop = true;
  }

  /** @param {Settings} settings */
  show({ blend_prompt, blend_seed, blend_share }) {
    if (document.activeElement !== this.#prompt) this.#prompt.value = blend_prompt;
    if (document.activeElement !== this.#seed) this.#seed.value = blend_seed === null ? "" : String(blend_seed);
    const share = blend_share ?? 0;
    this.#share.value = String(share);
    html("blend-value").textContent = `${Math.round(share * 100)} %`;
    const off = blend_prompt === "" && blend_seed === null;
    this.#share.disabled = off;
    button("blend-clear").hidden = off;
    for (const loop of this.#loops) loop.button.disabled = off && !this.#running;
  }

  /** @param {{button: HTMLButtonElement, save: typeof saveGif, name: string}} loop */
  async #play(loop) {
    this.#running = true;
    this.#stop = false;
    const text = loop.button.textContent;
    const settings = this.#host.settings();
    /** @type {Blob[]} */
    const there = [];
    try {
      for (let i = 0; i < FRAMES && !this.#stop; i++) {
        loop.button.textContent = `Stop: ${i + 1} of ${FRAMES}`;
        // Slow at both ends.
        const share = (1 - Math.cos((Math.PI * i) / (FRAMES - 1))) / 2;
        there.push(await this.#host.paint({ ...settings, blend_share: share }));
      }
      if (!this.#stop) await loop.save([...there, ...there.slice(1, -1).reverse()], DELAY_MS, loop.name);
    } catch (reason) {
      this.#host.failed("The loop could not be made.", why(reason));
    } finally {
      this.#running = false;
      loop.button.textContent = text;
      this.#host.ended();
    }
  }
}
