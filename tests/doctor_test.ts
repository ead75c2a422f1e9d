/**
 * What `rayd doctor` concludes of a cluster's versions and clocks.
 *
 * @module
 */

import { assertEquals, assertStringIncludes } from "@std/assert";
import { ClockReports, clocks, SKEW_MS_MAX, versions } from "../cli/doctor_cluster.ts";
import { VERSION } from "../core/version.ts";

const A = { id: "a".repeat(32), hostname: "10.0.0.1", role: "head", version: VERSION } as const;
const B = { id: "b".repeat(32), hostname: "10.0.0.2", role: "worker", version: "0.0.1" } as const;

Deno.test("versions are well if they are this one's; otherwise each other one is named", () => {
  assertEquals(versions([A, A]).mend, undefined);
  const { finding, mend } = versions([A, B]);
  assertEquals(finding, `this is rayd ${VERSION}, but bbbbbbbb at 10.0.0.2 is 0.0.1`);
  assertStringIncludes(mend!, "put the same rayd on all machines");
});

Deno.test("the quickest of several reports tells how clocks differ, and what the head had before tells nothing", async () => {
  const reports = new ClockReports();
  reports.take([[A.id, 900], [B.id, 99_000]], 100); // of an hour ago, perhaps
  reports.take([[A.id, 1000], [B.id, 6000]], 1030);
  reports.take([[A.id, 2000]], 2005);
  let enough = false;
  const waiting = reports.enough([A.id, B.id], 60_000).then(() => enough = true);
  reports.take([[A.id, 3000], [B.id, 8000], ["c", undefined]], 3100);
  assertEquals(enough, false);
  reports.take([[B.id, 9000]], 4001);
  await waiting;
  assertEquals([...reports.skews(3)], [[A.id, -5 + 3], [B.id, 4999 + 3]]);
});

Deno.test("reports that do not come are not waited for without end", async () => {
  const reports = new ClockReports();
  await reports.enough([A.id], 1);
  assertEquals(reports.skews(0).size, 0);
});

Deno.test("clocks are well up to a limit; beyond it each is named, with its direction", () => {
  const well = clocks([A, B], new Map([[A.id, SKEW_MS_MAX], [B.id, -SKEW_MS_MAX]]));
  assertEquals(well, { what: "clocks", finding: "those of 2 nodes are within 1000 ms of this one" });
  assertEquals(
    clocks([A, B], new Map([[A.id, 2]])).finding,
    "those of 1 nodes are within 2 ms of this one; nothing was heard of 1",
  );
  const one = clocks([A, B], new Map([[A.id, 2], [B.id, SKEW_MS_MAX + 500]]));
  assertEquals(one.finding, "worker bbbbbbbb at 10.0.0.2 is 1.5 s ahead");
  assertStringIncludes(one.mend!, "set the clocks there");
  const all = clocks([A, B], new Map([[A.id, -9000], [B.id, -9100]]));
  assertEquals(
    all.finding,
    "head aaaaaaaa at 10.0.0.1 is 9.0 s behind, worker bbbbbbbb at 10.0.0.2 is 9.1 s behind",
  );
  assertStringIncludes(all.mend!, "set the clock here");
});
