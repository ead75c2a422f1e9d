/**
 * What a node says to its operator: structured records through @std/log's successor LogTape, on standard error.
 *
 * @module
 */

import { configureSync, getLogger } from "@std/log";
import type { LogLevel } from "./config.ts";

/** A log for a node. @param level The least level that is shown. */
export function nodeLog(level: LogLevel): (level: "info" | "warn" | "error", message: string) => void {
  if (level === "off") return () => {};
  const encoder = new TextEncoder();
  configureSync({
    reset: true,
    sinks: {
      stderr: (record) => {
        const time = new Date(record.timestamp).toISOString();
        Deno.stderr.writeSync(encoder.encode(`${time} rayd ${record.level}: ${record.message.join("")}\n`));
      },
    },
    loggers: [
      { category: ["logtape", "meta"], sinks: [], lowestLevel: "fatal" },
      { category: "rayd", sinks: ["stderr"], lowestLevel: level === "warn" ? "warning" : level },
    ],
  });
  const logger = getLogger(["rayd", "node"]);
  return (level, message) => logger[level](message.replaceAll("{", "{{").replaceAll("}", "}}"));
}
