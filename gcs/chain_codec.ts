/**
 * Entries of a shard's history as bytes: what a replica keeps of them on disk, and what travels down the chain.
 *
 * @module
 */

import { ProtocolError } from "../core/errors.ts";
import { unreachable } from "../core/unreachable.ts";
import { ByteReader, ByteWriter } from "../transport/bytes.ts";
import type { ChainCommand, ChainEntry, Position, ReplicaMessage } from "./chain_messages.ts";
import { readOperation, writeOperation } from "./protocol.ts";

/** Appends a position. */
function writePosition(to: ByteWriter, { seq, epoch, hash }: Position): void {
  to.f64(seq);
  to.f64(epoch);
  to.u32(hash);
}

/** Reads a position. */
function readPosition(from: ByteReader): Position {
  return { seq: from.size(), epoch: from.size(), hash: from.u32() };
}

/** Appends an entry. */
function writeEntry(to: ByteWriter, entry: ChainEntry): void {
  writePosition(to, entry);
  const { command } = entry;
  switch (command.kind) {
    case "apply": {
      const { client, sequence, acknowledged, operations } = command.command;
      to.u8(0);
      to.taskId(client);
      to.f64(sequence);
      to.f64(acknowledged);
      to.u32(operations.length);
      for (const operation of operations) writeOperation(to, operation);
      return;
    }
    case "remember":
      to.u8(1);
      return to.taskId(command.client);
    case "expire":
      to.u8(2);
      return to.taskId(command.client);
    default:
      unreachable(command);
  }
}

/** Reads an entry. */
export function readEntry(from: ByteReader): ChainEntry {
  const { seq, epoch, hash } = readPosition(from);
  return { seq, epoch, hash, command: readCommand(from) };
}

function readCommand(from: ByteReader): ChainCommand {
  const kind = from.u8();
  switch (kind) {
    case 0:
      return {
        kind: "apply",
        command: {
          client: from.taskId(),
          sequence: from.size(),
          acknowledged: from.size(),
          operations: from.list(() => readOperation(from)),
        },
      };
    case 1:
      return { kind: "remember", client: from.taskId() };
    case 2:
      return { kind: "expire", client: from.taskId() };
    default:
      throw new ProtocolError(`Cannot read an entry of a shard's history: there is no command ${kind}`);
  }
}

const WRITER = new ByteWriter(4096);

/** An entry as bytes of its own. */
export function entryBytes(entry: ChainEntry): Uint8Array {
  WRITER.length = 0;
  writeEntry(WRITER, entry);
  return WRITER.bytes().slice();
}

/** An entry of bytes that {@link entryBytes} made. */
export function entryOfBytes(bytes: Uint8Array): ChainEntry {
  const reader = new ByteReader();
  reader.block(bytes);
  reader.window(0, bytes.length);
  return readEntry(reader);
}

const KIND = { position: 1, probe: 2, forward: 3, ack: 4, chunk: 5, taken: 6 } as const satisfies Record<
  ReplicaMessage["type"],
  number
>;

/** A message between replicas of a shard as bytes of its own. */
export function encodeReplicaMessage(shard: number, m: ReplicaMessage): Uint8Array {
  const to = new ByteWriter(256);
  to.u8(KIND[m.type]);
  to.u16(shard);
  to.f64(m.epoch);
  switch (m.type) {
    case "position":
      writePosition(to, m.at);
      to.u8(m.copying ? 1 : 0);
      break;
    case "probe":
      break;
    case "forward":
      to.f64(m.after);
      to.f64(m.committed);
      to.u32(m.entries.length);
      for (const entry of m.entries) writeEntry(to, entry);
      break;
    case "ack":
      to.f64(m.seq);
      break;
    case "chunk":
      writePosition(to, m.at);
      to.u32(m.index);
      to.u8(m.last ? 1 : 0);
      to.u32(m.checksum);
      to.u32(m.entries.length);
      for (const [key, { value, revision, lease }] of m.entries) {
        to.text(key);
        to.f64(revision);
        to.u8(lease === "" ? 0 : 1);
        if (lease !== "") to.taskId(lease);
        to.blob(value);
      }
      to.u32(m.meta.length);
      for (const [name, value] of m.meta) {
        // A client's name in there is 16 bytes as characters, which are no text.
        to.blob(Uint8Array.from(name, (character) => character.charCodeAt(0)));
        to.blob(value);
      }
      break;
    case "taken":
      writePosition(to, m.at);
      to.u32(m.index);
      break;
    default:
      unreachable(m);
  }
  return to.bytes();
}

/** Reads what {@link encodeReplicaMessage} wrote. @throws {ProtocolError} If it is none. */
export function decodeReplicaMessage(
  bytes: Uint8Array,
): { readonly shard: number; readonly message: ReplicaMessage } {
  const from = new ByteReader();
  from.block(bytes);
  from.window(0, bytes.length);
  const kind = from.u8(), shard = from.u16(), epoch = from.size();
  const message = replicaMessage(from, kind, epoch);
  if (from.remaining !== 0) {
    throw new ProtocolError(`Cannot read "${message.type}": ${from.remaining} bytes are left over`);
  }
  return { shard, message };
}

function replicaMessage(from: ByteReader, kind: number, epoch: number): ReplicaMessage {
  switch (kind) {
    case KIND.position:
      return { type: "position", epoch, at: readPosition(from), copying: from.u8() !== 0 };
    case KIND.probe:
      return { type: "probe", epoch };
    case KIND.forward:
      return {
        type: "forward",
        epoch,
        after: from.size(),
        committed: from.size(),
        entries: from.list(() => readEntry(from)),
      };
    case KIND.ack:
      return { type: "ack", epoch, seq: from.size() };
    case KIND.chunk:
      return {
        type: "chunk",
        epoch,
        at: readPosition(from),
        index: from.u32(),
        last: from.u8() !== 0,
        checksum: from.u32(),
        entries: from.list(() => {
          const key = from.text(), revision = from.size();
          const lease = from.u8() === 0 ? "" as const : from.taskId();
          return [key, { revision, lease, value: from.blob() }] as const;
        }),
        meta: from.list(() => [String.fromCharCode(...from.blob()), from.blob()] as const),
      };
    case KIND.taken:
      return { type: "taken", epoch, at: readPosition(from), index: from.u32() };
    default:
      throw new ProtocolError(`Cannot read a message: replicas take none of kind ${kind}`);
  }
}
