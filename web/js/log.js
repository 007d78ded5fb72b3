// `window.prima`: what was sent and painted, and the shown picture's exact pixels. For tests and for the curious.

/** @import { Painter } from "./painter.js" */
/** @import { Easel } from "./easel.js" */
/** @import { Pixels } from "./png.js" */

/** @typedef {{what: "sent" | "arrived" | "painted", rev: number, type: string, tier: number, final: boolean, prompt: string, at_ms: number}} Entry */

const KEPT = 4000;

/**
 * @param {Painter} painter
 * @param {Easel} easel
 * @param {(blob: Blob) => Promise<Pixels>} decode
 */
export function startLog(painter, easel, decode) {
  /** @type {Entry[]} */
  const entries = [];
  const add = (/** @type {Entry} */ entry) => {
    entries.push(entry);
    if (entries.length > KEPT) entries.shift();
  };
  painter.onSent(({ rev, request, sent_ms }) =>
    add({ what: "sent", rev, type: request.type, tier: 0, final: false, prompt: request.prompt, at_ms: sent_ms }),
  );
  painter.onFrame(({ request }, { header, at }) =>
    add({ what: "arrived", rev: header.rev, type: request.type, tier: header.tier, final: header.final, prompt: request.prompt, at_ms: at }),
  );
  easel.onPainted(({ job, frame: { header }, painted_ms }) =>
    add({ what: "painted", rev: header.rev, type: "paint", tier: header.tier, final: header.final, prompt: job?.request.prompt ?? "", at_ms: painted_ms }),
  );
  return Object.freeze({
    entries,
    /** The canvas's picture at its own size; and the file's pixels, decoded without the browser's help. */
    async shown() {
      const shown = easel.shown;
      const drawn = easel.pixels();
      if (!shown || !drawn) return null;
      const { header, blob } = shown.frame;
      const file = await decode(blob);
      const rgb = drawn.data.filter((_, i) => i % 4 !== 3);
      return { ...header, drawn: Array.from(rgb), file: Array.from(file.rgb) };
    },
  });
}
