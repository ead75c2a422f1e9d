/**
 * Draws the Mandelbrot set: tasks compute tiles straight into shared memory, and the driver, which sees them there
 * without a copy, puts them together and writes a PNG.
 *
 *     rayd run examples/mandelbrot.ts [FILE] [WIDTH]
 *
 * @module
 */

import { encode } from "fast-png";
import { allocate, get, put, type Ref, remote } from "rayd";

const STEPS_MAX = 500;

/** Rows `top` to `bottom` of the picture: one byte a pixel, in shared memory. */
export const tile = remote(
  async function tile(width: number, height: number, top: number, bottom: number): Promise<Ref<Uint8Array>> {
    const pixels = await allocate(Uint8Array, width * (bottom - top));
    for (let i = 0; i < pixels.length; i++) {
      const cx = (i % width) / width * 3 - 2.2;
      const cy = (top + Math.floor(i / width)) / height * 2.4 - 1.2;
      let x = 0, y = 0, steps = 0;
      while (x * x + y * y < 4 && steps < STEPS_MAX) {
        [x, y, steps] = [x * x - y * y + cx, 2 * x * y + cy, steps + 1];
      }
      pixels[i] = steps === STEPS_MAX ? 0 : 255 - 255 * Math.sqrt(steps / STEPS_MAX);
    }
    return put(pixels);
  },
);

if (import.meta.main) {
  const file = Deno.args[0] ?? "mandelbrot.png";
  const width = Number(Deno.args[1] ?? 1600), height = Math.round(width * 0.8), rows = 32;
  const started = performance.now();
  const tiles: Ref<Ref<Uint8Array>>[] = [];
  for (let top = 0; top < height; top += rows) {
    tiles.push(tile.remote(width, height, top, Math.min(height, top + rows)));
  }
  const data = new Uint8Array(width * height);
  for (const [i, pixels] of (await get(await get(tiles))).entries()) data.set(pixels, i * rows * width);
  Deno.writeFileSync(file, encode({ width, height, data, channels: 1, depth: 8 }));
  console.log(`${file}: ${width} x ${height} in ${((performance.now() - started) / 1000).toFixed(2)} s`);
}
