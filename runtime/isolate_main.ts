/**
 * The entry of a worker isolate that is a thread of its node's process.
 *
 * @module
 */

import type { IsolateConfig } from "../node/config.ts";
import { runIsolate } from "./isolate.ts";

self.onmessage = (event: MessageEvent<IsolateConfig>) => {
  self.onmessage = null;
  runIsolate(event.data);
};
