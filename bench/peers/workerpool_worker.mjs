/**
 * The same functions, as workerpool wants them: registered.
 *
 * @module
 */

import { megabyte, sleep, small } from "./pools_worker.mjs";

const { load } = await import(new URL("../.peers/load.mjs", import.meta.url).href);
const { default: workerpool } = await load("workerpool");
workerpool.worker({ small, megabyte, sleep });
