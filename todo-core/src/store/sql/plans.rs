//! No statement reads more rows than it needs, however many tasks there are: the plan of each statement is compared
//! with the index that it is made for.
//!
//! A new statement must be added to the lists below, or the tests do not compile.

use super::{
    names::{Dialect, Names},
    statements::Statements,
};

#[cfg(feature = "postgres")]
mod postgres {
    use std::fmt::Write as _;

    use serde_json::Value;
    use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _, SqlStr};

    use super::{Dialect, Names, Statements};
    use crate::{
        DueFilter, Limit, ListName, NewTask, Priority, Sort, Tag, Task, TaskFilter, TaskQuery, Title, UserId,
        clock::{Clock as _, SystemClock},
        store::{
            postgres,
            sql::{
                columns::{self, COLUMNS, Kind},
                selection::{self, Selections},
                statements::{Batches, Calls, OfPostgres, OfShards},
            },
        },
    };

    /// The number of tasks. Every third one belongs to Ann, and only her first [`DONE`] are completed.
    const TASKS: usize = 60_000;
    const DONE: usize = 150;
    /// The number of rows that a page of 100 reads.
    const PAGE: usize = 101;
    /// The number of calls in a batch.
    const BATCH: usize = 50;

    /// A statement with parameters like those of a store.
    struct Case {
        name: &'static str,
        sql: String,
        /// Values with their types: `'ann'::text`.
        parameters: Vec<String>,
        /// The columns by which the index is searched, in their order. None: no row is searched for.
        by: &'static [&'static str],
        /// The maximum number of database pages that it reads.
        pages: usize,
        /// The maximum number of rows that it reads without using them.
        discarded: usize,
    }

    /// The pages from the root of an index to a row: four here, and one in reserve.
    const SEARCH: usize = 5;
    /// The pages for writing a row: a search, its page, an entry in each index, and sometimes a page that is split.
    const WRITE: usize = 25;
    /// What a write reads and writes for the revision: the row of the owner, and what is left of deleted tasks.
    const TRIGGER: usize = 30;
    /// The revision of Ann.
    const REVISION: i64 = 4_000_000_000_000_000_000;

    #[expect(clippy::too_many_lines, reason = "a list")]
    fn cases(sql: &Statements) -> Vec<Case> {
        let Statements {
            names: _,
            row_security: _,
            call,
            // See `the_sorts_of_an_index_read_their_page_and_the_others_the_tasks_of_the_caller`.
            selections: _,
            #[cfg(feature = "sqlite")]
                sqlite: _,
            postgres,
            batch,
            shards,
            is_sharded: _,
        } = sql;
        let Calls {
            insert,
            requested,
            taken,
            get,
            list,
            list_completed,
            summary: _,
            update,
            reposition: _,
            delete,
            erase,
            erase_deleted,
            erase_owner,
            transfer,
            changes,
            revisions,
            ping,
            // It stops at the first row of any owner, and no call runs it.
            has_tasks: _,
            owners,
            expire: _,
        } = call;
        let OfPostgres { insert_all: _, update_if, delete_if, erase_lock, transfer_lock, purge } = postgres;
        let OfShards {
            room,
            insert_row,
            // See `insert_row`.
            insert_rows: _,
            row: _,
            // It joins the owners with their places in the call; the search is that of one index.
            revisions_of_shards: _,
            // See `transfer_lock`.
            lock_owner: _,
            ping_of_shards: _,
        } = shards;
        let owner = &["user_id"][..];
        let by_revision = &["user_id", "ROW(revision,"][..];
        let key = &["user_id", "id"][..];
        let completed = &["user_id", "completed", "id"][..];
        let (ann, some, all) = ("'ann'::text", &*id(30_000), "'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid");
        let (page, yes, unknown) = ("101::bigint", "true::boolean", "null::bigint");
        let known = "9223372036854775807::bigint";
        // A row, and a change of every column that changes.
        let row = COLUMNS.iter().map(|column| match (column.name, column.kind) {
            ("user_id", _) => ann.to_owned(),
            ("id", _) => "gen_random_uuid()::uuid".to_owned(),
            (name, kind) => sample(name, kind),
        });
        let row: Vec<_> = row.collect();
        let of_row: Vec<_> = row.iter().map(String::as_str).collect();
        let none = ["null::text", "null::smallint", "null::bytea", "30000::bigint"];
        let row: Vec<_> = of_row.iter().copied().chain(none).collect();
        let other_row = row.clone();
        let change: Vec<_> = columns::change_parameters().iter().map(|(name, kind)| sample(name, *kind)).collect();
        let fixed = [ann, some, "now()::timestamptz"];
        let change: Vec<_> = fixed.into_iter().chain(change.iter().map(String::as_str)).collect();
        let met = ["array[1]::bigint[]", "array[7]::bigint[]", "now()::timestamptz"];
        let change_if: Vec<_> = change.iter().copied().chain(met).collect();
        let case = |name, sql: &SqlStr, parameters: &[&str], by, pages| {
            let parameters = parameters.iter().map(|&value| value.to_owned()).collect();
            Case { name, sql: sql.as_str().to_owned(), parameters, by, pages, discarded: 0 }
        };
        let mut cases = vec![
            case("insert", insert, &row, owner, TRIGGER + WRITE),
            case("requested", requested, &[ann, "'key'::text"], &["user_id", "request_key"], 2 * SEARCH),
            case("taken", taken, &[ann, &format!("array[{some}]::uuid[]")], key, 2 * SEARCH),
            case("get", get, &[ann, some], key, SEARCH),
            case("list", list, &[ann, all, page, unknown], key, PAGE + 2 * SEARCH),
            case("list from the middle", list, &[ann, some, page, unknown], key, PAGE + 2 * SEARCH),
            case("list of a known revision", list, &[ann, all, page, &format!("{REVISION}::bigint")], owner, SEARCH),
            case(
                "list the few that are done",
                list_completed,
                &[ann, all, page, unknown, yes],
                completed,
                PAGE + 2 * SEARCH,
            ),
            case("update", update, &change, key, SEARCH + TRIGGER + WRITE),
            case("update_if", update_if, &change_if, key, 2 * SEARCH + TRIGGER + WRITE),
            case("delete", delete, &[ann, some], key, SEARCH + TRIGGER + WRITE),
            case("delete_if", delete_if, &[&[ann, some], &met[..]].concat(), key, 2 * SEARCH + TRIGGER + WRITE),
            case(
                "changes",
                changes,
                &[ann, "1::bigint", all, page, "1::bigint", all],
                by_revision,
                2 * PAGE + 3 * SEARCH,
            ),
            case("no changes", changes, &[ann, known, all, page, known, all], by_revision, 4 * SEARCH),
            case("revisions", revisions, &["array['ann', 'user 7', 'nobody']::text[]"], owner, 3 * SEARCH),
            // Of 500 users and Ann.
            case("owners", owners, &["''::text", "1000::bigint"], &["user_id", "revision"], 501 * SEARCH + PAGE),
            case("purge", purge, &[ann, "1::bigint", page], &["user_id", "revision"], 3 * SEARCH),
            case("erase_lock", erase_lock, &[ann], owner, SEARCH),
            // It searches while it writes, which a plan does not show.
            case("transfer_lock", transfer_lock, &[ann, "'user 7'::text"], &[], 2 * WRITE),
            // 80 tasks, each on its own page and in the indexes.
            case("erase", erase, &["'user 7'::text"], owner, SEARCH + 80 * (TRIGGER + WRITE)),
            case("erase_deleted", erase_deleted, &["'user 7'::text"], owner, SEARCH + 80 * 4),
            case("erase_owner", erase_owner, &["'user 7'::text"], owner, 2 * SEARCH),
            // The same 80 tasks are read and locked, written again, and deleted.
            case(
                "transfer",
                transfer,
                &["'user 7'::text", "'user new'::text"],
                &["user_id"],
                80 * (WRITE + 2 * SEARCH + 2 * TRIGGER),
            ),
            case("room", room, &[ann, "'key'::text"], &["user_id", "request_key"], 3 * SEARCH),
            case("insert_row", insert_row, &other_row[..other_row.len() - 1], &[], TRIGGER + WRITE),
            case("ping", ping, &[], &[], 0),
        ];
        let Batches { get_many, list_many, list_completed_many, insert_many, update_many, delete_many } = batch;
        let case = |name, sql: &SqlStr, parameters: &[&str], by, pages| {
            // Each call is about another task.
            let of_call = |value: &str, call| if value == some { id(30_000 + 3 * call) } else { value.to_owned() };
            let parameters = parameters.iter().map(|&value| many(|call| of_call(value, call))).collect();
            Case { name, sql: sql.as_str().to_owned(), parameters, by, pages: BATCH * pages, discarded: 0 }
        };
        cases.extend([
            case("many gets", get_many, &[ann, some], key, SEARCH),
            case("many lists", list_many, &[ann, some, page, unknown], key, PAGE + 2 * SEARCH),
            case(
                "many lists of what is done",
                list_completed_many,
                &[ann, some, page, unknown, yes],
                completed,
                PAGE + 2 * SEARCH,
            ),
            case(
                "many inserts",
                insert_many,
                &[&of_row[..], &["30000::bigint"]].concat(),
                owner,
                3 * SEARCH + TRIGGER + WRITE,
            ),
            // They search for owners and tasks that are not locked, and for tasks to change.
            case("many updates", update_many, &change, key, 3 * SEARCH + TRIGGER + WRITE),
            case("many deletes", delete_many, &[ann, some], key, 3 * SEARCH + TRIGGER + WRITE),
        ]);
        cases
    }

    /// A value for a column or a parameter of a change.
    fn sample(name: &str, kind: Kind) -> String {
        let value = match kind {
            Kind::Text if name == "position" => "'a5'",
            Kind::Text if name == "metadata" => "'{}'",
            Kind::Text => "'2026-12-01'",
            Kind::Texts => "'{home}'",
            Kind::Smalls => "'{1}'",
            Kind::Uuid => "gen_random_uuid()",
            Kind::Bool => "true",
            Kind::Small | Kind::Big => "1",
            Kind::Time => "now()",
        };
        format!("{value}::{}", columns::postgres_type(kind))
    }

    /// The statements within the functions, read from the database, with the parameters of the statements that they
    /// replace.
    async fn cases_in_functions(url: &str, sql: &Statements) -> Vec<Case> {
        let mut connection = PgConnection::connect(url).await.expect("a connection");
        let mut cases = cases(sql);
        // There are no functions for batches and locks, and some functions have several statements.
        let others = [
            "ping",
            "owners",
            "erase",
            "erase_deleted",
            "erase_owner",
            "erase_lock",
            "transfer",
            "transfer_lock",
            "revisions",
            "room",
            "insert_row",
        ];
        cases.retain(|case| !case.name.starts_with("many") && !others.contains(&case.name));
        for case in &mut cases {
            let function = match case.name {
                "list from the middle" | "list of a known revision" => "list",
                "no changes" => "changes",
                "list the few that are done" => "list_completed",
                name => name,
            };
            let body = "select substring(prosrc from 'return query (.*?);') from pg_proc where proname ~ ('^tasks_' || $1 || '_[0-9a-f]{10}$')";
            let body: String =
                sqlx::query_scalar(body).bind(function).fetch_one(&mut connection).await.expect("a function");
            case.sql = body;
            if function == "insert" {
                // The owner is locked and looked up before.
                case.by = &[];
            }
        }
        cases
    }

    /// The id of a task. It belongs to Ann if its number is divisible by three.
    fn id(number: usize) -> String {
        format!("'01900000-0000-7000-8000-{number:012x}'::uuid")
    }

    /// An array with one parameter of each call in a batch.
    fn many(value: impl Fn(usize) -> String) -> String {
        let values = (0..BATCH).map(&value).collect::<Vec<_>>().join(", ");
        format!("array[{values}]::{}[]", kind(&value(0)))
    }

    fn kind(value: &str) -> &str {
        value.rsplit_once("::").map_or("", |(_, kind)| kind)
    }

    fn in_parentheses(list: &[&str]) -> String {
        if list.is_empty() { String::new() } else { format!("({})", list.join(", ")) }
    }

    impl Case {
        async fn prepare(&self, connection: &mut PgConnection) {
            let kinds = in_parentheses(&self.parameters.iter().map(|value| kind(value)).collect::<Vec<_>>());
            run(connection, &format!(r#"prepare "{}" {kinds} as {}"#, self.name, self.sql)).await;
        }

        /// What is wrong with the plan of the statement; empty if nothing is.
        async fn complaints(&self, connection: &mut PgConnection) -> String {
            let values = in_parentheses(&self.parameters.iter().map(String::as_str).collect::<Vec<_>>());
            let mark = if self.sql.contains(columns::RECORDS) { columns::RECORDS } else { "" };
            let explain =
                format!(r#"/* {mark} */ explain (analyze, buffers, format json) execute "{}" {values}"#, self.name);
            // Now and then PostgreSQL reads its catalogue beside the tables. Not each time.
            let mut pages = usize::MAX;
            let mut plan = Value::Null;
            for _ in 0..3 {
                // Its writes are rolled back.
                run(connection, "savepoint before").await;
                let row = connection.fetch_one(sqlx::raw_sql(AssertSqlSafe(explain.clone()))).await.expect("a plan");
                run(connection, "rollback to before").await;
                let plans: Value = serde_json::from_str(&row.get_unchecked::<String, _>(0)).expect("JSON");
                plan = plans[0]["Plan"].clone();
                pages = pages.min(number(&plan, "Shared Hit Blocks") + number(&plan, "Shared Read Blocks"));
                if pages <= self.pages {
                    break;
                }
            }
            let plan = &plan;

            let mut found = Found::default();
            self.look_at(plan, 1, &mut found);
            if (found.searches == 0) != self.by.is_empty() {
                found.complaints.push(format!("{} searches of an index", found.searches));
            }
            if pages > self.pages {
                found.complaints.push(format!("{pages} pages instead of {}", self.pages));
            }
            let complaints = found.complaints.join(", ");
            if complaints.is_empty() { complaints } else { format!("{}: {complaints}\n{}", self.name, found.outline) }
        }

        fn look_at(&self, node: &Value, depth: usize, found: &mut Found) {
            let kind = node["Node Type"].as_str().unwrap_or_default();
            // What is not run reads nothing.
            if node["Actual Loops"] == 0 {
                return;
            }
            let condition = node["Index Cond"].as_str();
            let wasted = number(node, "Rows Removed by Filter");
            let indent = "    ".repeat(depth);
            let _ = writeln!(found.outline, "{indent}{kind} {}", condition.unwrap_or_default());

            let fit = ["ModifyTable", "Index Scan", "Index Only Scan", "Bitmap Heap Scan"];
            let table = node["Relation Name"].as_str().unwrap_or_default();
            if table.starts_with("tasks") && !fit.contains(&kind) {
                found.complaints.push(format!("a {kind} of {table}"));
            }
            if let Some(condition) = condition {
                found.searches += 1;
                // Most statements begin with the row of the owner. Those that insert look whether the task was deleted before.
                // The deletion of a transfer searches for all tasks of the owner, or for each task.
                // Whatever else an index is searched by: what a query discards are other tasks of the same owner.
                let fits = columns(condition) == self.by
                    || (table == "tasks_owners" && columns(condition) == ["user_id"])
                    || (self.discarded > 0 && columns(condition).first() == Some(&"user_id"))
                    || (self.name == "many inserts"
                        && table == "tasks_deleted"
                        && columns(condition) == ["user_id", "id"])
                    || (self.name == "transfer" && columns(condition) == ["user_id", "id"]);
                if !fits {
                    found.complaints.push(format!("an index is searched by {condition}"));
                }
            }
            if wasted > self.discarded {
                found.complaints.push(format!("{wasted} rows are read and discarded"));
            }
            for node in node["Plans"].as_array().into_iter().flatten() {
                self.look_at(node, depth + 1, found);
            }
        }
    }

    #[derive(Default)]
    struct Found {
        searches: usize,
        complaints: Vec<String>,
        outline: String,
    }

    fn number(node: &Value, name: &str) -> usize {
        node[name].as_u64().and_then(|number| number.try_into().ok()).unwrap_or(0)
    }

    /// The left sides of `((t.user_id = k.user_id) AND (t.id <= k.newest))`.
    fn columns(condition: &str) -> Vec<&str> {
        let left =
            condition.split(" AND ").filter_map(|comparison| comparison.trim_start_matches('(').split(' ').next());
        left.map(|column| column.rsplit_once('.').map_or(column, |(_, column)| column)).collect()
    }

    async fn run(connection: &mut PgConnection, sql: &str) {
        if let Err(error) = connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await {
            panic!("{error}: {sql}");
        }
    }

    /// A connection to a database with [`TASKS`] tasks on which all statements are prepared.
    async fn prepared(url: &str, cases: &[Case]) -> PgConnection {
        let mut connection = filled(url).await;
        for case in cases {
            case.prepare(&mut connection).await;
        }
        connection
    }

    async fn filled(url: &str) -> PgConnection {
        let mut connection = PgConnection::connect(url).await.expect("a connection");
        let fill = format!(
            r#"alter table "todo"."tasks" disable trigger user;
               insert into "todo"."tasks" (user_id, id, title, completed, created_at, updated_at, due, due_at, position)
               select case when n % 3 = 0 then 'ann' else 'user ' || n % 500 end,
                      ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
                      'Buy milk and bread, number ' || n, n % 3 = 0 and n <= {}, now(), now(),
                      case when n % 2 = 0 then '2026-12-01' end, case when n % 2 = 0 then now() + n * interval '1 s' end,
                      'a' || n % 10
               from generate_series(1, {TASKS}) n;
               update "todo"."tasks" set revision = 1000000 + ('x' || right(id::text, 6))::bit(24)::int;
               insert into "todo"."tasks_owners" (user_id, revision, tasks, purged)
               select user_id, case user_id when 'ann' then {REVISION} else max(revision) end, count(*), 0
               from "todo"."tasks" group by user_id;
               alter table "todo"."tasks" enable trigger user;
               insert into "todo"."tasks_deleted" (user_id, id, revision, version, deleted_at)
               select case when n % 3 = 0 then 'ann' else 'user ' || n % 500 end, gen_random_uuid(), n, 1, now()
               from generate_series(1, {TASKS}) n"#,
            3 * DONE
        );
        run(&mut connection, &fill).await;
        for table in ["tasks", "tasks_owners", "tasks_deleted"] {
            run(&mut connection, &format!(r#"vacuum analyze "todo"."{table}""#)).await;
        }
        connection
    }

    async fn complaints(
        connection: &mut PgConnection,
        cases: impl IntoIterator<Item = &Case> + Clone,
    ) -> Vec<(&'static str, String)> {
        let mut all = Vec::new();
        // The driver prepares statements. The server plans them for each set of parameters at first, and later, if that
        // seems no worse, once for all.
        for mode in ["force_custom_plan", "force_generic_plan"] {
            run(connection, &format!("set local plan_cache_mode = {mode}")).await;
            for case in cases.clone() {
                let complaints = case.complaints(connection).await;
                if !complaints.is_empty() {
                    all.push((case.name, format!("{mode}, {complaints}")));
                }
            }
        }
        all
    }

    #[tokio::test]
    async fn every_statement_is_one_search_of_its_index() {
        let cases = cases(&Statements::new(Dialect::Postgres, Names::default()));
        let database = testkit::stores::todo_database().await;
        let mut connection = prepared(database.url(), &cases).await;
        run(&mut connection, "begin").await;
        let found = complaints(&mut connection, &cases).await;
        assert!(found.is_empty(), "{}", found.into_iter().map(|(_, text)| text).collect::<String>());

        // The test fails if an index is missing.
        let by_completed = r#"drop index "todo"."tasks_user_id_completed_id_idx""#;
        let by_key = r#"alter table "todo"."tasks" drop constraint "tasks_pkey""#;
        for (missing, columns) in [(by_completed, &["user_id", "completed", "id"][..]), (by_key, &["user_id", "id"])] {
            run(&mut connection, "savepoint whole").await;
            run(&mut connection, missing).await;
            let found = complaints(&mut connection, &cases).await;
            for case in cases.iter().filter(|case| case.by == columns) {
                let times = found.iter().filter(|(name, _)| *name == case.name).count();
                assert_eq!(times, 2, "{} has the same plan after: {missing}", case.name);
            }
            run(&mut connection, "rollback to whole").await;
        }
    }

    /// A statement with filters, or with a sort.
    fn selection(owner: &str, name: &'static str, query: &TaskQuery, by: &'static [&'static str]) -> Case {
        let statements = Statements::new(Dialect::Postgres, Names::default());
        let texts = postgres::texts(Selections::list_values(owner, query, None));
        let parameters = texts.into_iter().zip(selection::list_kinds()).map(|(text, kind)| {
            let value = text.map_or_else(|| "null".to_owned(), |text| format!("'{}'", text.replace('\'', "''")));
            format!("{value}::{}", columns::postgres_type(kind))
        });
        let sql = statements.selections.list(query).as_str().to_owned();
        Case { name, sql, parameters: parameters.collect(), by, pages: PAGE + 2 * SEARCH, discarded: 0 }
    }

    /// What is documented in `docs/api.md`: which sorts read no more than their page, however many tasks the caller has.
    #[tokio::test]
    async fn the_sorts_of_an_index_read_their_page_and_the_others_the_tasks_of_the_caller() {
        let query = || TaskQuery::new().limit(Limit::new(100).expect("a limit"));
        let title = Title::new("Buy milk").expect("a title");
        let owner = UserId::new("ann").expect("a user");
        let task = NewTask::new(title).into_task(owner, uuid::Uuid::nil().into(), SystemClock.now());
        let middle = Task { position: "a5".parse().expect("a position"), ..task };
        let by_position = query().sort(Sort::Position);
        let open = TaskFilter::new().completed(false);
        let mut cases = vec![
            selection("ann", "created", &query().sort(Sort::OldestFirst), &["user_id"]),
            selection("ann", "due", &query().sort(Sort::Due), &["user_id"]),
            selection("ann", "-due", &query().sort(Sort::DueDescending), &["user_id"]),
            selection("ann", "position", &query().sort(Sort::Position), &["user_id"]),
            selection("ann", "position backwards", &query().sort(Sort::PositionDescending), &["user_id"]),
            selection("ann", "open, by position", &query().sort(Sort::Position).filter(open), &["user_id"]),
            selection(
                "ann",
                "position from the middle",
                &by_position.clone().cursor(by_position.cursor_after(&middle)),
                &["user_id", "ROW(\"position\","],
            ),
        ];
        // Only the few that are done are read for nothing.
        cases[5].discarded = DONE;
        cases[5].pages += DONE;
        // The others read all tasks of a user, who has 80.
        let list = ListName::new("Home").expect("a list");
        let due = DueFilter::Between { from: None, before: "2026-01-01".parse().ok() };
        for (name, query) in [
            ("priority", query().sort(Sort::Priority)),
            ("title", query().sort(Sort::Title)),
            ("updated", query().sort(Sort::Updated)),
            ("-updated", query().sort(Sort::UpdatedDescending)),
            ("a list", query().filter(TaskFilter::new().list(list))),
            ("a tag", query().filter(TaskFilter::new().tag(Tag::new("home").expect("a tag")))),
            ("a priority", query().filter(TaskFilter::new().priority(Priority::High))),
            ("a text", query().filter(TaskFilter::new().text("milk"))),
            ("overdue", query().filter(TaskFilter::new().completed(false).due(due))),
        ] {
            let mut case = selection("user 7", name, &query, &["user_id"]);
            case.discarded = 80;
            case.pages = 2 * (80 + SEARCH) + SEARCH;
            cases.push(case);
        }
        let database = testkit::stores::todo_database().await;
        let mut connection = prepared(database.url(), &cases).await;
        run(&mut connection, "begin").await;
        let found = complaints(&mut connection, &cases).await;
        assert!(found.is_empty(), "{}", found.into_iter().map(|(_, text)| text).collect::<String>());

        // The test fails if an index is missing.
        for (missing, names) in [
            (r#"drop index "todo"."tasks_user_id_position_id_idx""#, &["position", "position backwards"][..]),
            (r#"drop index "todo"."tasks_user_id_due_at_id_idx""#, &["due", "-due"]),
        ] {
            run(&mut connection, "savepoint whole").await;
            run(&mut connection, missing).await;
            let found = complaints(&mut connection, &cases).await;
            for name in names {
                let times = found.iter().filter(|(found, _)| found == name).count();
                assert_eq!(times, 2, "{name} has the same plan after: {missing}");
            }
            run(&mut connection, "rollback to whole").await;
        }
    }

    /// Row-level security adds a comparison, and the statements still use their indexes.
    #[tokio::test]
    async fn with_row_security_every_statement_is_one_search_of_its_index_too() {
        let secured = testkit::stores::RowSecurityDatabase::migrated().await;
        let cases = cases_in_functions(&secured.owner, &Statements::new(Dialect::Postgres, Names::default())).await;
        filled(secured.database.url()).await;
        let mut connection = PgConnection::connect(&secured.app).await.expect("a connection");
        for case in &cases {
            case.prepare(&mut connection).await;
        }
        run(&mut connection, "begin").await;
        run(&mut connection, "select set_config('todo.user_id', 'ann', true)").await;
        // The first time, the pages that the session reads to load the policy and its function count too.
        complaints(&mut connection, &cases).await;
        let found = complaints(&mut connection, &cases).await;
        assert!(found.is_empty(), "{}", found.into_iter().map(|(_, text)| text).collect::<String>());
        secured.database.close().await;
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use sqlx::{Connection as _, Executor as _, Row as _, SqliteConnection};

    use super::{Dialect, Names, Statements};
    use crate::store::{
        SqliteStore,
        sql::statements::{Calls, OfSqlite},
    };

    /// Each statement.
    fn cases(sql: &Statements) -> Vec<(&'static str, &str)> {
        let Statements { call, sqlite, .. } = sql;
        let Calls {
            insert,
            requested,
            taken,
            get,
            list,
            list_completed,
            summary: _,
            update,
            reposition: _,
            delete,
            erase,
            erase_deleted,
            erase_owner,
            transfer,
            changes,
            revisions,
            // These end before they read a row, which a plan does not show.
            ping: _,
            has_tasks: _,
            owners,
            expire,
        } = call;
        let OfSqlite { lock: _, transfer_delete, transfer_count, purge_until, purge, purge_owner } = sqlite;
        let statements = [
            ("insert", insert),
            ("requested", requested),
            ("taken", taken),
            ("get", get),
            ("list", list),
            ("list_completed", list_completed),
            ("update", update),
            ("delete", delete),
            ("erase", erase),
            ("transfer", transfer),
            ("changes", changes),
            ("revisions", revisions),
            ("erase_deleted", erase_deleted),
            ("erase_owner", erase_owner),
            ("transfer_delete", transfer_delete),
            ("transfer_count", transfer_count),
            ("purge_until", purge_until),
            ("purge", purge),
            ("purge_owner", purge_owner),
            ("owners", owners),
            ("expire", expire),
        ];
        statements.map(|(name, sql)| (name, sql.as_str())).to_vec()
    }

    /// How SQLite finds the rows of each statement: every search of a table by its index. Some tables have an alias.
    const PLANS: &[(&str, &[&str])] = &[
        (
            "insert",
            &[
                "SEARCH todo_tasks_owners USING PRIMARY KEY (user_id=?)",
                "SEARCH todo_tasks USING COVERING INDEX todo_tasks_user_id_request_key_idx (user_id=? AND request_key=?)",
                "SEARCH todo_tasks_deleted USING COVERING INDEX todo_tasks_deleted_user_id_request_key_idx (user_id=? AND request_key=?)",
            ],
        ),
        (
            "requested",
            &[
                "SEARCH todo_tasks USING INDEX todo_tasks_user_id_request_key_idx (user_id=? AND request_key=?)",
                "SEARCH todo_tasks_deleted USING INDEX todo_tasks_deleted_user_id_request_key_idx (user_id=? AND request_key=?)",
            ],
        ),
        (
            "taken",
            &[
                "SEARCH todo_tasks USING PRIMARY KEY (user_id=? AND id=?)",
                "SEARCH todo_tasks_owners USING PRIMARY KEY (user_id=?)",
            ],
        ),
        ("get", &["SEARCH todo_tasks USING PRIMARY KEY (user_id=? AND id=?)"]),
        (
            "list",
            &[
                "SEARCH todo_tasks_owners USING PRIMARY KEY (user_id=?)",
                "SEARCH todo_tasks_owners USING PRIMARY KEY (user_id=?)",
                "SEARCH todo_tasks USING PRIMARY KEY (user_id=? AND id<?)",
            ],
        ),
        (
            "list_completed",
            &[
                "SEARCH todo_tasks_owners USING PRIMARY KEY (user_id=?)",
                "SEARCH todo_tasks_owners USING PRIMARY KEY (user_id=?)",
                "SEARCH todo_tasks USING INDEX todo_tasks_user_id_completed_id_idx (user_id=? AND completed=? AND id<?)",
            ],
        ),
        ("update", &["SEARCH todo_tasks USING PRIMARY KEY (user_id=? AND id=?)"]),
        ("delete", &["SEARCH todo_tasks USING PRIMARY KEY (user_id=? AND id=?)"]),
        ("erase", &["SEARCH todo_tasks USING PRIMARY KEY (user_id=?)"]),
        ("transfer", &["SEARCH todo_tasks USING PRIMARY KEY (user_id=?)"]),
        (
            "changes",
            &[
                "SEARCH todo_tasks_owners USING PRIMARY KEY (user_id=?)",
                "SEARCH todo_tasks_owners USING PRIMARY KEY (user_id=?)",
                "SEARCH todo_tasks USING INDEX todo_tasks_user_id_revision_id_idx (user_id=? AND (revision,id)>(?,?))",
                "SEARCH todo_tasks_deleted USING COVERING INDEX todo_tasks_deleted_user_id_revision_id_idx (user_id=? AND (revision,id)>(?,?))",
            ],
        ),
        ("revisions", &["SEARCH o USING PRIMARY KEY (user_id=?) LEFT-JOIN"]),
        ("erase_deleted", &["SEARCH todo_tasks_deleted USING PRIMARY KEY (user_id=?)"]),
        (
            "erase_owner",
            &[
                "SEARCH todo_tasks_owners USING PRIMARY KEY (user_id=?)",
                "SEARCH todo_tasks USING COVERING INDEX todo_tasks_user_id_revision_id_idx (user_id=?)",
            ],
        ),
        ("transfer_delete", &["SEARCH todo_tasks USING PRIMARY KEY (user_id=? AND id=?)"]),
        ("transfer_count", &["SEARCH todo_tasks USING COVERING INDEX todo_tasks_user_id_revision_id_idx (user_id=?)"]),
        (
            "purge_until",
            &[
                "SEARCH todo_tasks_deleted USING COVERING INDEX todo_tasks_deleted_user_id_revision_id_idx (user_id=? AND revision<?)",
            ],
        ),
        (
            "purge",
            &[
                "SEARCH todo_tasks_deleted USING INDEX todo_tasks_deleted_user_id_revision_id_idx (user_id=? AND revision<?)",
            ],
        ),
        ("purge_owner", &["SEARCH todo_tasks_owners USING PRIMARY KEY (user_id=?)"]),
        (
            "owners",
            &[
                "SEARCH o USING PRIMARY KEY (user_id>?)",
                "SEARCH d USING COVERING INDEX todo_tasks_deleted_user_id_revision_id_idx (user_id=?)",
            ],
        ),
        ("expire", &["SEARCH todo_tasks_owners USING PRIMARY KEY (user_id>? AND user_id<?)"]),
    ];

    async fn plan(connection: &mut SqliteConnection, statement: &str) -> Vec<String> {
        let explain = sqlx::AssertSqlSafe(format!("explain query plan {statement}"));
        let rows = connection.fetch_all(sqlx::query(explain)).await.expect("a plan");
        rows.iter().map(|row| row.get("detail")).collect()
    }

    #[tokio::test]
    async fn every_statement_is_one_search_of_its_index() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tasks.db");
        SqliteStore::open_lazy(&path).migrate().await.expect("a table");
        let mut connection = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.expect("a file");
        let sql = Statements::new(Dialect::Sqlite, Names::default());
        let searches = async |connection: &mut SqliteConnection, statement: &str| {
            let mut plan = plan(connection, statement).await;
            plan.retain(|step| step.contains(" todo_tasks") || step.starts_with("SEARCH o "));
            plan
        };
        let mut found = Vec::new();
        for (name, statement) in cases(&sql) {
            found.push((name, searches(&mut connection, statement).await));
        }
        let expected: Vec<_> =
            PLANS.iter().map(|(name, steps)| (*name, steps.iter().map(ToString::to_string).collect())).collect();
        assert_eq!(found, expected);
        // The test fails if an index is missing.
        connection.execute("drop index todo_tasks_user_id_completed_id_idx").await.expect("it was there");
        // A connection keeps the plan of a statement that it knows.
        let mut connection = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.expect("a file");
        let (_, statement) = cases(&sql)[5];
        assert_ne!(searches(&mut connection, statement).await, expected[5].1);
    }
}
