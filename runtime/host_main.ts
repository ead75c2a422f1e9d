/**
 * The entry of a host process: one worker isolate with a process of its own, so that a native crash or an exhausted
 * heap ends it and nothing else. What its node tells it comes as one line of JSON on standard input.
 *
 * @module
 */

import type { IsolateConfig } from "../node/config.ts";
import { runIsolate } from "./isolate.ts";

/** Runs a host until its node ends it, or is gone. */
export async function runHost(): Promise<void> {
  let text = "";
  const decoder = new TextDecoderStream();
  for await (const chunk of Deno.stdin.readable.pipeThrough(decoder)) {
    text += chunk;
    if (text.includes("\n")) break;
  }
  await runIsolate(JSON.parse(text) as IsolateConfig);
}

if (import.meta.main) await runHost();
