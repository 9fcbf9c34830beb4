// Compiled by scripts/check-sync, and never run: the declarations of todo-replication.mjs fit RxDB and their use.

import { createRxDatabase } from "rxdb/plugins/core";
import { getRxStorageMemory } from "rxdb/plugins/storage-memory";
import { conflictHandler, newTask, replicateTasks, taskSchema } from "./todo-replication.mjs";

const database = await createRxDatabase({ name: "todo", storage: getRxStorageMemory() });
const { tasks } = await database.addCollections({ tasks: { schema: taskSchema, conflictHandler } });
await tasks.insert(newTask({ title: "Milk", priority: "high" }));
const replication = replicateTasks({
  collection: tasks,
  url: "https://example.com/api",
  getToken: async (rejected) => rejected ?? "token",
  onRejected: (task, problem) => console.warn(task.title, problem.code),
  onConflict: (resolved, mine, theirs) => console.info(resolved.version, mine.version, theirs._deleted),
  retryTime: 1000,
});
replication.error$.subscribe(console.error);
await replication.awaitInSync();
// @ts-expect-error a task has a title
newTask({ priority: "high" });
// @ts-expect-error a priority is one of four
newTask({ title: "Milk", priority: "highest" });
