// The types of todo-replication.mjs, for TypeScript.

import type { ReplicationOptions, RxCollection, RxConflictHandler, RxJsonSchema, WithDeleted } from "rxdb";
import type { RxReplicationState } from "rxdb/plugins/replication";

/** A task as the server returns it; docs/api.md describes the fields. `version` is 0 until the server has the task. */
export interface Task {
  id: string;
  user_id: string;
  title: string;
  description: string | null;
  completed: boolean;
  completed_at: string | null;
  due: string | null;
  priority: "low" | "medium" | "high" | "urgent" | null;
  list: string | null;
  tags: string[];
  position: string;
  metadata: Record<string, unknown>;
  created_at: string;
  updated_at: string;
  version: number;
}

/** What a client may choose of a new task. */
export type NewTask = Pick<Task, "title"> &
  Partial<Pick<Task, "description" | "completed" | "due" | "priority" | "list" | "tags" | "position" | "metadata">>;

/** What the server says about a request that it does not accept (RFC 9457). */
export interface Problem {
  code: string;
  detail?: string;
  field_errors?: Record<string, string>;
}

/** The last change that was received. */
export interface Checkpoint {
  token: string;
}

export const taskSchema: RxJsonSchema<Task>;
export const conflictHandler: RxConflictHandler<Task>;
export function newTask(fields: NewTask): Task;

export interface Options extends Omit<ReplicationOptions<Task, Checkpoint>, "pull" | "push" | "replicationIdentifier"> {
  collection: RxCollection<Task>;
  /** The address of the API, such as `https://example.com/api`. */
  url: string;
  /** Returns a token of the user. `rejected` is the one that the server did not accept, if there was one. */
  getToken(rejected?: string): string | Promise<string>;
  /** Is told of a change that the server will never accept. */
  onRejected?(task: WithDeleted<Task>, problem: Problem): void;
  /** Is told of a task that was changed here and elsewhere: what it is now, what it was here, and what it is on the server. */
  onConflict?(resolved: WithDeleted<Task>, mine: WithDeleted<Task>, theirs: WithDeleted<Task>): void;
  fetch?: typeof globalThis.fetch;
  replicationIdentifier?: string;
  pull?: { batchSize?: number };
  push?: { batchSize?: number };
}

/** Replicates a collection with the tasks of one user until it is cancelled. */
export function replicateTasks(options: Options): RxReplicationState<Task, Checkpoint>;
