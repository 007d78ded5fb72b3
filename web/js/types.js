// Shapes that several files share. No code: JSDoc only.

/**
 * What a picture is made from. `null` leaves the choice to the model.
 * @typedef {object} Settings
 * @property {string} prompt
 * @property {string} negative_prompt
 * @property {number} seed
 * @property {number | null} steps
 * @property {number | null} guidance_scale
 * @property {number | null} width
 * @property {number | null} height
 * @property {number | null} strength
 * @property {Readonly<Record<string, number>>} loras weights by name
 * @property {string} blend_prompt what the picture is on its way to; nothing: the prompt
 * @property {number | null} blend_seed the same of the seed
 * @property {number | null} blend_share how much of the way is behind it, 0 to 1
 * @property {readonly Region[]} regions parts with prompts of their own
 */

/** `area`: left, top, right and bottom as shares of the picture's sides. */
/** @typedef {{prompt: string, area: readonly [number, number, number, number]}} Region */

/**
 * @typedef {object} ModelInfo
 * @property {string} name
 * @property {number} width
 * @property {number} height
 * @property {number} size_multiple
 * @property {[number, number][]} sizes that the model can paint; any where there is none
 * @property {number} num_inference_steps
 * @property {number} guidance_scale
 * @property {number} strength
 * @property {boolean} uses_guidance
 * @property {string[]} styles
 * @property {string[]} schedulers
 * @property {string[]} loras
 * @property {string[]} controlnets
 * @property {string[]} prompts to begin with
 * @property {WordGroup[]} vocabulary what it learnt to paint
 */

/** @typedef {{name: string, words: string[]}} WordGroup */

/**
 * @typedef {object} Limits
 * @property {number} prompt_chars
 * @property {number} image_bytes
 * @property {number} image_pixels
 * @property {number} max_steps
 * @property {number} max_side_px
 * @property {number} variants
 */

/** @typedef {{type: "hello", protocol: number, version: string, model: ModelInfo, models: string[], chosen: string, limits: Limits}} Hello */
/** @typedef {{type: "loading", model: string | null, part: string, bytes: number, total: number}} Loading */

/** @typedef {{queue_ms: number, text_ms: number, init_image_ms?: number, steps_ms: number[], decode_ms: number, encode_ms: number}} Timings */

/**
 * @typedef {object} FrameHeader
 * @property {"frame"} type
 * @property {number} rev
 * @property {number} index
 * @property {number} count
 * @property {number} tier
 * @property {boolean} final
 * @property {number} step
 * @property {number} steps
 * @property {number} width
 * @property {number} height
 * @property {string} format
 * @property {number} seed
 * @property {Timings} timings
 * @property {boolean} cold
 * @property {boolean} text_cached
 * @property {number} dropped
 * @property {number} cancelled
 * @property {string} [parameters]
 * @property {string[]} [warnings] what was asked for in vain
 */

/** A frame as it arrived: its header, its picture file, and when (`performance.now()`). */
/** @typedef {{header: FrameHeader, blob: Blob, at: number}} Frame */

/** @typedef {{word: string, start: number, end: number, change: number}} WordChange */
/** @typedef {{type: "sensitivity", rev: number, words: WordChange[]}} Sensitivity */
/** @typedef {{type: "error", rev: number | null, message: string, hint?: string}} ServerError */

/**
 * A message to the server, without its revision.
 * @typedef {{type: "paint" | "variants" | "sensitivity", prompt: string} & Record<string, unknown>} Request
 */

/** @typedef {"words" | "sketch" | "variants"} View */

export {};
