//! The fields that people plan with, filters, sorts, and requests about many tasks, in both forms of their paths.

use serde_json::{Value, json};
use todo_core::{Due, ListName, NewTask, Priority, Sort, TaskFilter, TaskQuery, Title, UserId, clock::Timestamp};

use super::{Case, Plan, Request, Shows, routes::UNKNOWN_ID};
use crate::apps::task_id;

/// The users of these cases. The first uses the paths without a user, the second those with it.
pub(super) const PLANNERS: [&str; 2] = ["planner", "planner/2"];

pub(super) fn add(plan: &mut Plan) {
    let of_bob = plan.create("bob", "a task that planners do not have");
    for (user, base) in PLANNERS.into_iter().zip(["/api/v1/tasks", "/api/v1/planner%2F2/tasks"]) {
        let mut cases = Planner { plan, user, base };
        cases.add_dues();
        cases.add_fields();
        cases.add_metadata();
        cases.add_arrays();
        cases.add_changes();
        cases.add_lists();
        cases.add_cursors();
        cases.add_bulk_changes();
        cases.add_moves(&of_bob);
    }
}

struct Planner<'a> {
    plan: &'a mut Plan,
    user: &'static str,
    base: &'static str,
}

impl Planner<'_> {
    fn request(&self, method: &str, end: &str) -> Request {
        Request::new(method, format!("{}{end}", self.base)).by(self.user)
    }

    fn name(&self, name: &str) -> String {
        format!("{}: {name}", self.user)
    }

    fn show(&mut self, name: &str, request: Request, status: u16, members: Value) {
        self.plan.show(self.name(name), request, status, members);
    }

    fn reject(&mut self, name: &str, request: Request, fields: &[&str]) {
        self.plan.reject(self.name(name), request, fields);
    }

    /// Creates a task, of which the response shows these members.
    fn create(&mut self, name: &str, body: &str, members: Value) -> String {
        self.show(name, self.request("POST", "").json(body), 201, members);
        self.plan.last_id()
    }

    /// Adds a creation that is rejected.
    fn reject_new(&mut self, name: &str, body: &str, fields: &[&str]) {
        self.reject(name, self.request("POST", "").json(body), fields);
    }

    /// Lists tasks with these titles.
    fn list(&mut self, query: &str, titles: &[&str]) {
        let tasks = titles.iter().map(|title| json!({"title": title})).collect();
        // Some lists are read again after changes.
        let name = format!("list {}: {query}", self.plan.cases.len());
        let case = Case::new(self.name(&name), self.request("GET", query), 200);
        self.plan.add(Case { shows: Some(Shows::Tasks(tasks)), ..case });
    }

    fn add_dues(&mut self) {
        for (due, shown) in [
            ("2026-12-01", "2026-12-01"),
            ("2024-02-29", "2024-02-29"),
            ("0001-01-01", "0001-01-01"),
            ("9999-12-31", "9999-12-31"),
            ("2026-12-01T17:00", "2026-12-01T17:00:00"),
            ("2026-12-01T17:00:05.25", "2026-12-01T17:00:05.25"),
            ("2026-12-01T23:59:59.999999999", "2026-12-01T23:59:59.999999999"),
            ("9999-12-31T23:59", "9999-12-31T23:59:00"),
            ("2026-12-01T16:00Z", "2026-12-01T16:00:00Z"),
            ("2026-12-01T17:00+01:00", "2026-12-01T16:00:00Z"),
            ("2026-12-01T00:30-12:00", "2026-12-01T12:30:00Z"),
            ("2026-12-01T17:00[Europe/Berlin]", "2026-12-01T17:00:00+01:00[Europe/Berlin]"),
            ("2026-12-01T17:00+01:00[europe/berlin]", "2026-12-01T17:00:00+01:00[Europe/Berlin]"),
            ("2026-12-01T17:00[UTC]", "2026-12-01T17:00:00+00:00[UTC]"),
            ("2026-12-01T17:00+00:00[UTC]", "2026-12-01T17:00:00+00:00[UTC]"),
            // The clock is set forward: this time does not exist.
            ("2026-03-29T02:30[Europe/Berlin]", "2026-03-29T03:30:00+02:00[Europe/Berlin]"),
            // The clock is set back: this time exists twice.
            ("2026-10-25T02:30[Europe/Berlin]", "2026-10-25T02:30:00+02:00[Europe/Berlin]"),
            ("2026-10-25T02:30+01:00[Europe/Berlin]", "2026-10-25T02:30:00+01:00[Europe/Berlin]"),
            // A gap of a whole day, and one of half an hour.
            ("2011-12-30T12:00[Pacific/Apia]", "2011-12-31T12:00:00+14:00[Pacific/Apia]"),
            ("2026-10-04T02:15[Australia/Lord_Howe]", "2026-10-04T02:45:00+11:00[Australia/Lord_Howe]"),
        ] {
            let body = json!({"title": "Due", "due": due}).to_string();
            let id = self.create(&format!("due: {due}"), &body, json!({"due": shown}));
            self.show(&format!("due: {due} again"), self.request("GET", &format!("/{id}")), 200, json!({"due": shown}));
        }
        for due in [
            "",
            " ",
            "tomorrow",
            "2026-12-1",
            "2026-12-01T",
            "2026-12-01T24:00",
            "2026-12-01T17:00:60",
            "2026-12-01T17:00:60Z",
            "2026-13-01",
            "2026-02-29",
            "0000-12-31",
            "10000-01-01",
            "+010000-01-01",
            "-000001-01-01",
            "2026-12-01Z",
            "2026-12-01[Europe/Berlin]",
            "2026-12-01T16:00Z[Europe/Berlin]",
            "2026-12-01T16:00Z[UTC]",
            "2026-12-01T17:00+24:00",
            "2026-12-01T17:00+05:00[Europe/Berlin]",
            "2026-03-29T02:30+01:00[Europe/Berlin]",
            "2026-12-01T17:00[Mars/Olympus]",
            "2026-12-01T17:00[../../etc/passwd]",
            "2026-12-01T17:00[Europe/../Europe/Berlin]",
            "2026-12-01T17:00[Europe/Berlin\0]",
            "2026-12-01T17:00[]",
            "2026-12-01T17:00[+01:00]",
            "2026-12-01T17:00[Europe/Berlin",
            "2026-12-01T17:00[Europe/Berlin][u-ca=hebrew]",
            "9999-12-31T23:59Z",
            "9999-12-31T23:59[Europe/Berlin]",
            "0001-01-01T00:00+23:00",
            " 2026-12-01",
            "２０２６-12-01",
        ] {
            let body = json!({"title": "Due", "due": due}).to_string();
            self.reject_new(&format!("not due: {due:?}"), &body, &["due"]);
        }
        let long = json!({"title": "Due", "due": "2026-12-01".repeat(1000)}).to_string();
        self.reject_new("not due: ten thousand characters", &long, &["due"]);
        self.reject_new("not due: a number", r#"{"title":"Due","due":20261201}"#, &["due"]);
        self.reject_new("not due: an object", r#"{"title":"Due","due":{}}"#, &["due"]);
    }

    fn add_fields(&mut self) {
        let all = r#"{"title":" All ","description":"d","completed":true,"due":"2026-12-01","priority":"urgent",
            "list":" Home ","tags":["b"," a ","B"],"position":"Zz","metadata":{"b":1,"a":[null]}}"#;
        let shown = json!({
            "title": "All", "description": "d", "completed": true, "completed_at": "2025-11-21T08:00:00.000000Z",
            "due": "2026-12-01", "priority": "urgent", "list": "Home", "tags": ["b", "a", "B"], "position": "Zz",
            "metadata": {"a": [null], "b": 1}, "version": 1,
        });
        self.create("all fields", all, shown);
        let empty = json!({
            "description": null, "completed": false, "completed_at": null, "due": null, "priority": null, "list": null,
            "tags": [], "position": "i84p8bc9nU", "metadata": {},
        });
        self.create("only a title", r#"{"title":"x"}"#, empty.clone());
        let nulls = r#"{"title":"x","description":null,"due":null,"priority":null,"list":null,"tags":null,
            "position":null,"metadata":null}"#;
        self.create("null", nulls, empty);
        for priority in ["low", "medium", "high"] {
            let body = json!({"title": "x", "priority": priority}).to_string();
            self.create(&format!("priority: {priority}"), &body, json!({"priority": priority}));
        }
        let (tags, many): (Vec<_>, Vec<_>) =
            ((0..20).map(|number| number.to_string()).collect(), (0..21).map(|number| number.to_string()).collect());
        let thirty = [&[String::new()], &many[..], &many[..8]].concat();
        let key = |length: usize| format!("a0{}", "V".repeat(length - 2));
        for (name, body, shown) in [
            ("a list of 100 characters", json!({"list": "ü".repeat(100)}), json!({"list": "ü".repeat(100)})),
            ("20 tags", json!({"tags": tags}), json!({"tags": tags})),
            ("a tag of 50 characters", json!({"tags": ["🦀".repeat(50)]}), json!({"tags": ["🦀".repeat(50)]})),
            ("no tags", json!({"tags": []}), json!({"tags": []})),
            ("a position of 100 characters", json!({"position": key(100)}), json!({"position": key(100)})),
        ] {
            self.create(name, &with_title(body), shown);
        }
        for (name, body, fields) in [
            ("priority: in capitals", json!({"priority": "High"}), &["priority"][..]),
            ("priority: empty", json!({"priority": ""}), &["priority"]),
            ("priority: a number", json!({"priority": 1}), &["priority"]),
            ("list: blank", json!({"list": " "}), &["list"]),
            ("list: 101 characters", json!({"list": "x".repeat(101)}), &["list"]),
            ("list: NUL", json!({"list": "a\0"}), &["list"]),
            ("list: an array", json!({"list": ["Home"]}), &["list"]),
            ("tags: a string", json!({"tags": "a"}), &["tags"]),
            ("tags: 21", json!({"tags": many}), &["tags"]),
            ("tags: the same twice", json!({"tags": ["a", "b", "a"]}), &["tags"]),
            ("tags: the same twice after trimming", json!({"tags": ["a", " a"]}), &["tags"]),
            ("tags: blank, a number and NUL", json!({"tags": ["a", "", 1, "\0"]}), &["tags.1", "tags.2", "tags.3"]),
            ("tags: 51 characters", json!({"tags": ["x".repeat(51)]}), &["tags.0"]),
            ("tags: null in them", json!({"tags": [null]}), &["tags.0"]),
            ("tags: 30, one of them bad", json!({"tags": thirty}), &["tags", "tags.0"]),
            ("position: empty", json!({"position": ""}), &["position"]),
            ("position: rubbish", json!({"position": "rubbish!"}), &["position"]),
            ("position: a trailing zero", json!({"position": "a00"}), &["position"]),
            ("position: too short", json!({"position": "b1"}), &["position"]),
            ("position: 101 characters", json!({"position": key(101)}), &["position"]),
            ("position: not ASCII", json!({"position": "aä"}), &["position"]),
            ("position: NUL", json!({"position": "a0\0"}), &["position"]),
            ("position: a number", json!({"position": 5}), &["position"]),
            ("completed_at", json!({"completed_at": null}), &["completed_at"]),
            (
                "everything is wrong",
                json!({"title": "", "description": 1, "completed": 1, "due": 1, "priority": 1, "list": 1, "tags": 1,
                    "position": 1, "metadata": 1, "version": 1, "more": 1}),
                &[
                    "title",
                    "description",
                    "completed",
                    "due",
                    "priority",
                    "list",
                    "tags",
                    "position",
                    "metadata",
                    "version",
                    "more",
                ],
            ),
        ] {
            self.reject_new(name, &with_title(body), fields);
        }
        let repeated = r#"{"title":"x","due":null,"due":null,"tags":[],"t\u0061gs":[]}"#;
        self.reject_new("fields that are given twice", repeated, &["due", "tags"]);
        let halves = r#"{"title":"x","list":"\ud83c","tags":["\ude00"],"due":"\ud800","metadata":{"\ud800":1}}"#;
        self.reject_new("halves of surrogate pairs", halves, &["list", "tags", "due", "metadata"]);
    }

    fn add_metadata(&mut self) {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        let padded = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
        let members: Vec<_> = (0..10_000).map(|number| format!("\"{number}\":0")).collect();
        for (name, metadata) in [
            ("8 levels", nested(8)),
            ("4096 bytes", padded(4096)),
            ("white space", format!("{{{}}}", " ".repeat(10_000))),
            ("the integers at the limits", r#"{"i":-9223372036854775808,"u":18446744073709551615}"#.to_owned()),
            ("null", r#"{"a":null,"b":{"c":null}}"#.to_owned()),
            ("every script", r#"{"日本":"🦀"}"#.to_owned()),
        ] {
            let shown: Value = serde_json::from_str(&metadata).expect("JSON");
            let body = format!(r#"{{"title":"x","metadata":{metadata}}}"#);
            self.create(&format!("metadata: {name}"), &body, json!({"metadata": shown}));
        }
        for (name, metadata) in [
            ("9 levels", nested(9)),
            ("200 levels", nested(200)),
            ("10,000 levels", nested(10_000)),
            ("4097 bytes", padded(4097)),
            ("5,000 members", format!("{{{}}}", members[..5_000].join(","))),
            ("1e100000", r#"{"a":1e100000}"#.to_owned()),
            ("-1e400 deep inside", r#"{"a":[{"b":[1,-1e400,2]}]}"#.to_owned()),
            ("NUL", r#"{"a":"\u0000"}"#.to_owned()),
            ("NUL in a name", r#"{"\u0000":1}"#.to_owned()),
            ("half of a surrogate pair", r#"{"a":["\ud83c"]}"#.to_owned()),
            ("the same name twice", r#"{"a":1,"b":{"c":1,"\u0063":2}}"#.to_owned()),
            ("an array", "[]".to_owned()),
            ("a string", r#""{}""#.to_owned()),
        ] {
            let body = format!(r#"{{"title":"x","metadata":{metadata}}}"#);
            self.reject_new(&format!("no metadata: {name}"), &body, &["metadata"]);
        }
        let body = format!(r#"{{"title":"x","metadata":{{{}}}}}"#, members.join(","));
        self.plan.ask(self.name("metadata: 10,000 members"), self.request("POST", "").json(body), 413);
        for (name, metadata) in [("NaN", "{\"a\":NaN}"), ("a leading zero", "{\"a\":01}"), ("not closed", "{\"a\":[1}")]
        {
            let body = format!(r#"{{"title":"x","metadata":{metadata}}}"#);
            let name = self.name(&format!("not JSON: metadata with {name}"));
            self.plan.ask(name, self.request("POST", "").json(body), 400);
        }
        let id = self.create("metadata to merge", r#"{"title":"x","metadata":{"a":1,"b":{"c":1,"d":2}}}"#, json!({}));
        for (name, method, metadata, merged) in [
            ("merged", "PATCH", r#"{"a":null,"b":{"c":3},"e":[]}"#, json!({"b": {"c": 3, "d": 2}, "e": []})),
            ("merged with nothing", "PATCH", "{}", json!({"b": {"c": 3, "d": 2}, "e": []})),
            (
                "an object instead of an array",
                "PATCH",
                r#"{"e":{"f":{"g":null}}}"#,
                json!({"b": {"c": 3, "d": 2}, "e": {"f": {}}}),
            ),
            ("cleared", "PATCH", "null", json!({})),
            ("set", "PUT", r#"{"a":null,"z":1}"#, json!({"a": null, "z": 1})),
            ("emptied", "PUT", "{}", json!({})),
            ("almost full", "PATCH", &*padded(4000), serde_json::from_str(&padded(4000)).expect("JSON")),
        ] {
            let body = format!(r#"{{"title":"x","metadata":{metadata}}}"#);
            let request = self.request(method, &format!("/{id}")).json(body);
            self.show(&format!("metadata: {name}"), request, 200, json!({"metadata": merged}));
        }
        let more = format!(r#"{{"metadata":{{"b":"{}"}}}}"#, "x".repeat(100));
        self.reject("merged metadata: too large", self.request("PATCH", &format!("/{id}")).json(more), &["metadata"]);
    }

    fn add_arrays(&mut self) {
        let many = |count: usize| Value::from(vec![json!({"title": "One of many"}); count]).to_string();
        for count in [1, 100] {
            let tasks = vec![json!({"title": "One of many", "version": 1}); count];
            let case =
                Case::new(self.name(&format!("array: {count}")), self.request("POST", "").json(many(count)), 201);
            self.plan.add(Case { shows: Some(Shows::Tasks(tasks)), ..case });
            self.plan.ids += count as u64 - 1;
        }
        for (name, body, fields) in [
            ("none", "[]".to_owned(), &["body"][..]),
            ("101", many(101), &["body"]),
            (
                "one bad among good",
                r#"[{"title":"a"},{"title":"b"},{"title":"c"},{"title":" "}]"#.to_owned(),
                &["3.title"],
            ),
            (
                "all kinds of bad",
                r#"[5,{"title":"x","tags":["a","a"],"more":1},null,[],{},{"title":"y","id":1},
                {"title":"z","tags":["",1],"due":"x"}]"#
                    .to_owned(),
                &["0", "1.more", "1.tags", "2", "3", "4.title", "5.id", "6.due", "6.tags.0", "6.tags.1"],
            ),
            (
                "half of a surrogate pair",
                r#"[{"title":"a"},{"title":"\ud83c","list":" "}]"#.to_owned(),
                &["1.title", "1.list"],
            ),
            (
                "a number that is too large",
                r#"[{"title":"a"},{"title":"b","metadata":{"n":1e999}},{"title":""}]"#.to_owned(),
                &["1.metadata", "2.title"],
            ),
            ("a title twice in one", r#"[{"title":"a"},{"title":"b","title":"c"}]"#.to_owned(), &["1.title"]),
            ("an array in the array", r#"[[{"title":"a"}]]"#.to_owned(), &["0"]),
        ] {
            self.reject_new(&format!("array: {name}"), &body, fields);
        }
        let unknown = self.request("POST", "?dry=run").json(r#"[{"title":""}]"#);
        self.reject("array: an unknown parameter", unknown, &["0.title", "dry"]);
        let conditional = self.request("POST", "").header("if-match", "*").json(r#"[{"title":"x"}]"#);
        self.reject("array: a condition", conditional, &["If-Match"]);
        self.plan.ask(self.name("array: not closed"), self.request("POST", "").json("[{\"title\":\"x\"}"), 400);
        for (method, body) in [("PUT", "[]"), ("PATCH", "[{}]")] {
            let request = self.request(method, &format!("/{UNKNOWN_ID}")).json(body);
            self.plan.ask(self.name(&format!("array: {method}")), request, 422);
        }
    }

    /// PUT and PATCH, also those of clients that know only the first fields.
    fn add_changes(&mut self) {
        let all = r#"{"title":"Plan","description":"d","due":"2026-12-01","priority":"low","list":"Home","tags":["a"],
            "position":"a1","metadata":{"x":1}}"#;
        let id = self.create("a task to change", all, json!({"title": "Plan"}));
        let kept = json!({
            "due": "2026-12-01", "priority": "low", "list": "Home", "tags": ["a"], "position": "a1", "metadata": {"x": 1},
        });
        let with = |more: Value| {
            let mut members = kept.clone();
            let (Some(all), Value::Object(more)) = (members.as_object_mut(), more) else { unreachable!("objects") };
            all.extend(more);
            members
        };
        for (name, method, body, shown) in [
            (
                "an old client replaces it",
                "PUT",
                r#"{"title":"Old"}"#,
                with(json!({"title": "Old", "description": null, "completed": false, "version": 2})),
            ),
            (
                "an old client replaces all it knows",
                "PUT",
                r#"{"title":"New","description":"e","completed":true}"#,
                with(json!({"title": "New", "completed": true, "completed_at": "2025-11-21T08:00:00.000000Z"})),
            ),
            (
                "an old client patches it",
                "PATCH",
                r#"{"completed":false}"#,
                with(json!({"completed": false, "completed_at": null, "version": 4})),
            ),
            (
                "nothing changes",
                "PATCH",
                r#"{"due":"2026-12-01","tags":["a"],"metadata":{"x":1}}"#,
                with(json!({"version": 4})),
            ),
            ("tags in another order", "PATCH", r#"{"tags":["b","a"]}"#, json!({"tags": ["b", "a"], "version": 5})),
            (
                "null clears",
                "PUT",
                r#"{"title":"New","due":null,"priority":null,"list":null,"tags":null,"metadata":null}"#,
                json!({"due": null, "priority": null, "list": null, "tags": [], "metadata": {}, "position": "a1"}),
            ),
            ("all of it is set again", "PATCH", all, with(json!({"title": "Plan"}))),
            (
                "[] and {} clear",
                "PUT",
                r#"{"title":"New","tags":[],"metadata":{}}"#,
                json!({"due": "2026-12-01", "tags": [], "metadata": {}}),
            ),
            (
                "null clears in a patch",
                "PATCH",
                r#"{"due":null,"priority":null,"list":null,"tags":null}"#,
                json!({"due": null, "priority": null, "list": null, "position": "a1"}),
            ),
        ] {
            self.show(&format!("change: {name}"), self.request(method, &format!("/{id}")).json(body), 200, shown);
        }
        for (method, body, fields) in [
            ("PUT", r#"{"title":"x","position":null}"#, &["position"][..]),
            ("PATCH", r#"{"position":null,"title":null,"completed":null}"#, &["position", "title", "completed"]),
            ("PATCH", r#"{"due":"x","tags":[1],"metadata":[]}"#, &["due", "tags.0", "metadata"]),
            ("PUT", r#"{"due":"2026-12-01"}"#, &["title"]),
        ] {
            let request = self.request(method, &format!("/{id}")).json(body);
            self.reject(&format!("change: {method} {body}"), request, fields);
        }
        let shown = json!({"title": "New", "due": null, "position": "a1"});
        self.show("change: the task afterwards", self.request("GET", &format!("/{id}")), 200, shown);
    }

    fn add_lists(&mut self) {
        let none = json!({"total": 0, "open": 0, "lists": [], "tags": []});
        let total = self.request("DELETE", "?all=true");
        self.plan.ask(self.name("delete all, before the cases of lists"), total, 200);
        self.show("summary: none", self.request("GET", "/summary"), 200, none);
        self.list("", &[]);
        let body = json!([
            {"title": "a", "due": "2026-12-01", "priority": "low", "list": "Home", "tags": ["x"]},
            {"title": "B", "due": "2026-11-30T23:30Z", "priority": "high", "tags": ["x", "y"]},
            {"title": "Ä", "list": "W&k=", "completed": true, "description": "needle"},
            {"title": "d", "due": "2026-12-01T09:00[America/New_York]", "priority": "urgent", "list": "Home",
                "tags": ["y"], "position": "a0"},
            {"title": "e", "due": "2026-12-01T08:00", "priority": "medium"},
        ]);
        let tasks = ["a", "B", "Ä", "d", "e"].map(|title| json!({"title": title})).to_vec();
        let case = Case::new(self.name("tasks to list"), self.request("POST", "").json(body.to_string()), 201);
        self.plan.add(Case { shows: Some(Shows::Tasks(tasks)), ..case });
        self.plan.ids += 4;
        for (sort, titles) in [
            ("-created", ["e", "d", "Ä", "B", "a"]),
            ("created", ["a", "B", "Ä", "d", "e"]),
            ("due", ["B", "a", "e", "d", "Ä"]),
            ("-due", ["d", "e", "a", "B", "Ä"]),
            ("priority", ["d", "B", "e", "a", "Ä"]),
            ("title", ["a", "B", "d", "e", "Ä"]),
            ("updated", ["a", "B", "Ä", "d", "e"]),
            ("-updated", ["e", "d", "Ä", "B", "a"]),
            ("position", ["d", "a", "B", "Ä", "e"]),
        ] {
            self.list(&format!("?sort={sort}"), &titles);
        }
        for (query, titles) in [
            ("?completed=true", &["Ä"][..]),
            ("?completed=false", &["e", "d", "B", "a"]),
            ("?list=Home", &["d", "a"]),
            ("?list=%20Home+", &["d", "a"]),
            ("?list=home", &[]),
            ("?list=", &["e", "B"]),
            ("?list=&list=W%26k%3D", &["e", "Ä", "B"]),
            ("?list=Home&list=Home", &["d", "a"]),
            ("?tag=x", &["B", "a"]),
            ("?tag=x&tag=y", &["B"]),
            ("?tag=X", &[]),
            ("?priority=low", &["a"]),
            ("?priority=low&priority=high", &["B", "a"]),
            ("?due=none", &["Ä"]),
            ("?due_from=2026-12-01", &["e", "d", "a"]),
            ("?due_from=2026-12-01&time_zone=Europe/Berlin", &["e", "d", "B", "a"]),
            ("?due_from=2026-12-01&time_zone=europe%2Fberlin", &["e", "d", "B", "a"]),
            ("?due_before=2026-12-01", &["B"]),
            ("?due_before=2026-12-01T10:00", &["e", "B", "a"]),
            ("?due_from=2026-12-01T00:00Z&due_before=2026-12-01T12:00Z", &["e", "a"]),
            ("?due_from=2026-12-01T15:00%2B01:00", &["d"]),
            ("?due_before=0001-01-01", &[]),
            ("?due_from=9999-12-31", &[]),
            ("?q=%C3%A4", &["Ä"]),
            ("?q=NEEDLE", &["Ä"]),
            ("?q=%25", &[]),
            ("?q=_", &[]),
            ("?updated_since=2025-11-21T08:00:00Z", &["e", "d", "Ä", "B", "a"]),
            ("?updated_since=2025-11-21T08:00:00.000001Z", &[]),
            ("?updated_since=2025-11-21T09:00:00%2B01:00", &["e", "d", "Ä", "B", "a"]),
            ("?time_zone=UTC", &["e", "d", "Ä", "B", "a"]),
            (
                "?completed=false&list=Home&list=&tag=y&priority=urgent&priority=high&due_from=2026-12-01\
                 &due_before=2026-12-02&time_zone=America/New_York&q=D&updated_since=2025-01-01T00:00:00Z",
                &["d"],
            ),
        ] {
            self.list(query, titles);
            let count = self.request("GET", &format!("/count{query}"));
            self.show(&format!("count: {query}"), count, 200, json!({"count": titles.len()}));
            self.plan.ask(
                self.name(&format!("HEAD count: {query}")),
                self.request("HEAD", &format!("/count{query}")),
                200,
            );
        }
        self.list("?sort=due&completed=false&tag=x", &["B", "a"]);
        let summary = json!({
            "total": 5, "open": 4,
            "lists": [{"name": "Home", "open": 2, "total": 2}, {"name": "W&k=", "open": 0, "total": 1}],
            "tags": [{"name": "x", "open": 2, "total": 2}, {"name": "y", "open": 2, "total": 2}],
        });
        self.show("summary", self.request("GET", "/summary"), 200, summary);
        self.add_wrong_queries();
    }

    fn add_wrong_queries(&mut self) {
        let tags = (0..21).map(|number| format!("tag={number}")).collect::<Vec<_>>().join("&");
        let long = |name: &str, length: usize| format!("?{name}={}", "x".repeat(length));
        for (query, fields) in [
            ("?due=none&due_from=2026-12-01", &["due"][..]),
            ("?due=none&due_before=2026-12-01", &["due"]),
            ("?due=2026-12-01", &["due"]),
            ("?due=", &["due"]),
            ("?due=none&due=none", &["due"]),
            ("?due_from=2026-12-02&due_before=2026-12-01", &["due_before"]),
            ("?due_from=2026-12-01&due_before=2026-12-01", &["due_before"]),
            ("?due_from=2026-12-01T00:00Z&due_before=2026-12-01&time_zone=Europe/Berlin", &["due_before"]),
            ("?due_from=10000-01-01&due_before=0000-01-01", &["due_from", "due_before"]),
            ("?due_from=2026-02-29", &["due_from"]),
            ("?due_from=", &["due_from"]),
            // The plus sign of an offset must be encoded.
            ("?due_from=2026-12-01T15:00+01:00", &["due_from"]),
            ("?due_from=2026-12-01&due_from=2026-12-01", &["due_from"]),
            ("?time_zone=Mars/Olympus", &["time_zone"]),
            ("?time_zone=..%2F..%2Fetc%2Fpasswd", &["time_zone"]),
            ("?time_zone=Europe%00Berlin", &["time_zone"]),
            ("?time_zone=", &["time_zone"]),
            ("?time_zone=UTC&time_zone=UTC", &["time_zone"]),
            ("?time_zone=%2B01:00", &["time_zone"]),
            ("?priority=High", &["priority"]),
            ("?priority=none", &["priority"]),
            ("?priority=low&priority=", &["priority"]),
            ("?tag=", &["tag"]),
            ("?tag=%00", &["tag"]),
            (&*long("tag", 51), &["tag"]),
            (&*format!("?{tags}"), &["tag"]),
            (&*long("list", 101), &["list"]),
            ("?list=+", &["list"]),
            ("?list=a%00", &["list"]),
            ("?q=", &["q"]),
            ("?q=a%00", &["q"]),
            (&*long("q", 201), &["q"]),
            ("?q=a&q=b", &["q"]),
            ("?updated_since=now", &["updated_since"]),
            ("?updated_since=2026-12-01", &["updated_since"]),
            ("?updated_since=2026-12-01T16:00:00", &["updated_since"]),
            ("?updated_since=99999-12-01T16:00:00Z", &["updated_since"]),
            ("?completed=true&completed=true", &["completed"]),
            ("?all=true", &["all"]),
            ("?Completed=true&due_to=2026-12-01&lists=a&tags=b", &["Completed", "due_to", "lists", "tags"]),
            (
                "?completed=1&list=%00&tag=&priority=x&due=x&due_from=x&due_before=x&time_zone=x&updated_since=x&q=&no=1",
                &[
                    "completed",
                    "list",
                    "tag",
                    "priority",
                    "due",
                    "due_from",
                    "due_before",
                    "time_zone",
                    "updated_since",
                    "q",
                    "no",
                ],
            ),
        ] {
            let name = if query.len() > 150 { &query[..50] } else { query };
            self.reject(&format!("list: {name}"), self.request("GET", query), fields);
            self.reject(&format!("count: {name}"), self.request("GET", &format!("/count{query}")), fields);
        }
        for (query, fields) in [
            ("?sort=id", &["sort"][..]),
            ("?sort=", &["sort"]),
            ("?sort=-priority", &["sort"]),
            ("?sort=-position", &["sort"]),
            ("?sort=Due", &["sort"]),
            ("?sort=due&sort=due", &["sort"]),
            ("?sort=%00&limit=0&cursor=%00&q=", &["sort", "limit", "cursor", "q"]),
        ] {
            self.reject(&format!("list: {query}"), self.request("GET", query), fields);
        }
        for (query, fields) in [("?limit=1&sort=due&cursor=x", &["limit", "sort", "cursor"][..]), ("?x", &["x"])] {
            self.reject(&format!("count: {query}"), self.request("GET", &format!("/count{query}")), fields);
        }
        for (query, fields) in [("?completed=true", &["completed"][..]), ("?all=true&x=1", &["all", "x"])] {
            self.reject(&format!("summary: {query}"), self.request("GET", &format!("/summary{query}")), fields);
        }
        self.plan.ask(self.name("HEAD summary"), self.request("HEAD", "/summary"), 200);
    }

    /// The cursor of each sort leads to the rest of the list, and to no other list.
    fn add_cursors(&mut self) {
        let last = self.plan.ids;
        let owner = UserId::new(self.user).expect("a user");
        // The tasks of the cases of lists, with what they are sorted by.
        let tasks = [
            ("a", "2026-12-01", Some(Priority::Low)),
            ("B", "2026-11-30T23:30Z", Some(Priority::High)),
            ("Ä", "", None),
            ("d", "2026-12-01T09:00[America/New_York]", Some(Priority::Urgent)),
            ("e", "2026-12-01T08:00", Some(Priority::Medium)),
        ];
        let now = Timestamp::from_unix_seconds(1_763_712_000);
        let tasks: Vec<_> = (last - 5..)
            .zip(tasks)
            .map(|(number, (title, due, priority))| {
                let due: Option<Due> = due.parse().ok();
                let position = match title {
                    "a" => "i84p8bc9nU",
                    "B" => "i84p8bc9nV",
                    "Ä" => "i84p8bc9nW",
                    "d" => "a0",
                    _ => "i84p8bc9nY",
                };
                let new = NewTask {
                    due,
                    priority,
                    position: position.parse().ok(),
                    ..NewTask::new(Title::new(title).expect("a title"))
                };
                new.into_task(owner.clone(), task_id(number), now)
            })
            .collect();
        let cursor = |query: &TaskQuery, title: &str| {
            query.cursor_after(tasks.iter().find(|task| task.title.as_str() == title).expect("a task")).to_string()
        };
        for (sort, after, titles) in [
            (Sort::NewestFirst, "d", &["Ä", "B", "a"][..]),
            (Sort::OldestFirst, "Ä", &["d", "e"]),
            (Sort::Due, "a", &["e", "d", "Ä"]),
            (Sort::Due, "Ä", &[]),
            (Sort::DueDescending, "B", &["Ä"]),
            (Sort::Priority, "e", &["a", "Ä"]),
            (Sort::Title, "B", &["d", "e", "Ä"]),
            (Sort::Updated, "d", &["e"]),
            (Sort::UpdatedDescending, "d", &["Ä", "B", "a"]),
            (Sort::Position, "d", &["a", "B", "Ä", "e"]),
        ] {
            let name = sort.name().expect("a name");
            let cursor = cursor(&TaskQuery::new().sort(sort), after);
            self.list(&format!("?sort={name}&cursor={cursor}"), titles);
            // The page begins with the same task, and may have another length.
            self.list(&format!("?cursor={cursor}&limit=1&sort={name}"), &titles[..titles.len().min(1)]);
            for other in ["-created", "created", "due", "-due", "priority", "title", "updated", "-updated", "position"]
            {
                if other != name {
                    let request = self.request("GET", &format!("?sort={other}&cursor={cursor}"));
                    self.reject(&format!("cursor: of {name} after {after} with {other}"), request, &["cursor"]);
                }
            }
            let request = self.request("GET", &format!("?sort={name}&cursor={cursor}&completed=false"));
            self.reject(&format!("cursor: of {name} after {after} with a filter"), request, &["cursor"]);
        }
        let home = TaskFilter::new().list(ListName::new("Home").expect("a list"));
        let of_home = cursor(&TaskQuery::new().filter(home), "d");
        self.list(&format!("?list=Home&cursor={of_home}"), &["a"]);
        for query in
            ["", "list=Home&list=", "list=home", "list=Home&tag=x", "list=Home&completed=false", "list=Home&sort=due"]
        {
            let request = self.request("GET", &format!("?{query}&cursor={of_home}"));
            self.reject(&format!("cursor: of a list with {query}"), request, &["cursor"]);
        }
        let backwards = cursor(&TaskQuery::new().sort(Sort::PositionDescending), "a");
        self.reject(
            "cursor: of an order without a name",
            self.request("GET", &format!("?sort=position&cursor={backwards}")),
            &["cursor"],
        );
        let twice = self.request("GET", &format!("?list=Home&cursor={of_home}&cursor={of_home}"));
        self.reject("cursor: twice", twice, &["cursor"]);
        // The link of each page, with parameters that are escaped.
        self.list("?list=&list=W%26k%3D&sort=-due&limit=1", &["e"]);
        self.list("?limit=1&q=%C3%84", &["Ä"]);
    }

    fn add_bulk_changes(&mut self) {
        let none = json!({"matched": 0, "changed": 0});
        for (query, body, matched, changed) in [
            ("?list=Home", r#"{"list":"House","priority":"high"}"#, 2, 2),
            ("?list=House", r#"{"list":"House","priority":"high"}"#, 2, 0),
            ("?list=House&tag=y", r#"{"due":null,"tags":["z"]}"#, 1, 1),
            ("?list=nowhere", r#"{"completed":true}"#, 0, 0),
            ("?all=true", r#"{"completed":true}"#, 5, 4),
            ("?all=true&time_zone=Europe/Berlin", r#"{"completed":false}"#, 5, 5),
            ("?all=true", "{}", 5, 0),
            ("?completed=false&due_from=2026-12-01&due_before=2027-01-01", r#"{"due":"2027-01-01"}"#, 2, 2),
            ("?q=b", r#"{"title":"Beta","description":"More","position":"Zz"}"#, 1, 1),
        ] {
            let request = self.request("PATCH", query).json(body);
            self.show(
                &format!("bulk: PATCH {query} {body}"),
                request,
                200,
                json!({"matched": matched, "changed": changed}),
            );
        }
        let merge_patch = self.request("PATCH", "?list=").header("content-type", "application/merge-patch+json");
        self.show(
            "bulk: a merge patch",
            merge_patch.body(r#"{"list":null}"#),
            200,
            json!({"matched": 2, "changed": 0}),
        );
        for (query, body, fields) in [
            ("", r#"{"completed":true}"#, &["all"][..]),
            ("?time_zone=UTC", r#"{"completed":true}"#, &["all"]),
            ("?all=false", r#"{"completed":true}"#, &["all"]),
            ("?all=", r#"{"completed":true}"#, &["all"]),
            ("?all=true&all=true", r#"{"completed":true}"#, &["all"]),
            ("?all=true&completed=true", r#"{"completed":true}"#, &["all"]),
            ("?all=true", r#"{"metadata":{"a":1}}"#, &["metadata"]),
            ("?all=true", r#"{"metadata":null}"#, &["metadata"]),
            ("?all=true", r#"{"metadata":5}"#, &["metadata"]),
            ("?all=true", r#"{"version":1,"user_id":"bob"}"#, &["version", "user_id"]),
            ("?list=Home&limit=5&sort=due&cursor=x", "{}", &["limit", "sort", "cursor"]),
            ("?lst=Home", r#"{"title":""}"#, &["all", "lst", "title"]),
            ("?tag=&priority=x", r#"{"due":"x","tags":[""]}"#, &["tag", "priority", "due", "tags.0"]),
        ] {
            self.reject(&format!("bulk: PATCH {query} {body}"), self.request("PATCH", query).json(body), fields);
        }
        self.plan.ask(self.name("bulk: an array"), self.request("PATCH", "?all=true").json("[]"), 422);
        for (query, fields) in [
            ("", &["all"][..]),
            ("?time_zone=Europe/Berlin", &["all"]),
            ("?all=1", &["all"]),
            ("?all=true&list=House", &["all"]),
            ("?all=true&q=", &["q"]),
            ("?due=none&due_from=2026-12-01", &["due"]),
            ("?lists=House", &["all", "lists"]),
            ("?completed=true&limit=1", &["limit"]),
        ] {
            self.reject(&format!("bulk: DELETE {query}"), self.request("DELETE", query), fields);
        }
        for condition in ["if-match", "if-none-match", "idempotency-key"] {
            let request = self.request("DELETE", "?all=true").header(condition, "\"1\"");
            self.plan.ask(self.name(&format!("bulk: DELETE with {condition}")), request, 422);
        }
        self.list("?sort=title", &["a", "Beta", "d", "e", "Ä"]);
        self.show("bulk: DELETE nothing", self.request("DELETE", "?list=Home"), 200, none);
        let deletion = self.request("DELETE", "?list=House&due=none");
        self.show("bulk: DELETE some", deletion, 200, json!({"matched": 1, "changed": 1}));
        self.list("?sort=title&completed=false", &["a", "Beta", "e", "Ä"]);
        self.show("bulk: DELETE all", self.request("DELETE", "?all=true"), 200, json!({"matched": 4, "changed": 4}));
        self.show("count: none", self.request("GET", "/count"), 200, json!({"count": 0}));
    }

    fn add_moves(&mut self, of_bob: &str) {
        let body = json!(["a", "b", "c", "d"].map(|title| json!({"title": title}))).to_string();
        self.plan.ask(self.name("tasks to move"), self.request("POST", "").json(body), 201);
        self.plan.ids += 3;
        let last = self.plan.ids;
        let [a, b, c, d] = [4, 3, 2, 1].map(|back| task_id(last - back).to_string());
        for (moved, place, order) in [
            (&d, json!({"first": true}), ["d", "a", "b", "c"]),
            (&d, json!({"last": true}), ["a", "b", "c", "d"]),
            (&a, json!({"after": b}), ["b", "a", "c", "d"]),
            (&c, json!({"before": b}), ["c", "b", "a", "d"]),
            (&c, json!({"before": b.to_uppercase()}), ["c", "b", "a", "d"]),
            (&c, json!({"first": true}), ["c", "b", "a", "d"]),
        ] {
            let request = self.request("POST", &format!("/{moved}/move")).json(place.to_string());
            let name = format!("move {moved} to {place}");
            self.show(&name, request, 200, json!({"id": moved}));
            let tasks = order.iter().map(|title| json!({"title": title})).collect();
            let case =
                Case::new(self.name(&format!("order after: {name}")), self.request("GET", "?sort=position"), 200);
            self.plan.add(Case { shows: Some(Shows::Tasks(tasks)), ..case });
        }
        for (name, body, fields) in [
            ("nowhere", json!({}), &["before"][..]),
            ("first and last", json!({"first": true, "last": true}), &["before"]),
            ("before and after", json!({"before": b, "after": c}), &["before"]),
            ("not first", json!({"first": false}), &["first"]),
            ("null", json!({"before": null, "first": null}), &["before", "first"]),
            ("a number", json!({"after": 5}), &["after"]),
            ("no UUID", json!({"after": "x"}), &["after"]),
            ("an unknown task", json!({"before": UNKNOWN_ID}), &["before"]),
            ("itself", json!({"after": a}), &["after"]),
            ("another user's task", json!({"before": of_bob}), &["before"]),
            ("an unknown member", json!({"to": 1}), &["before", "to"]),
            ("a place and an unknown member", json!({"last": true, "position": "a0"}), &["position"]),
        ] {
            let request = self.request("POST", &format!("/{a}/move")).json(body.to_string());
            self.reject(&format!("move: {name}"), request, fields);
        }
        let twice = self.request("POST", &format!("/{a}/move")).json(r#"{"first":true,"first":true}"#);
        self.reject("move: first twice", twice, &["first"]);
        let query = self.request("POST", &format!("/{a}/move?first=true")).json(r#"{"first":true}"#);
        self.reject("move: a parameter", query, &["first"]);
        let both = self.request("POST", "/7/move").json(r#"{"before":"x"}"#);
        self.reject("move: no ids", both, &["id", "before"]);
        for (name, body) in [("a body that is an array", "[]"), ("a body that is null", "null")] {
            let request = self.request("POST", &format!("/{a}/move")).json(body);
            self.plan.ask(self.name(&format!("move: {name}")), request, 422);
        }
        self.plan.ask(self.name("move: no body"), self.request("POST", &format!("/{a}/move")), 400);
        let merge_patch =
            self.request("POST", &format!("/{a}/move")).header("content-type", "application/merge-patch+json");
        self.plan.ask(self.name("move: a merge patch"), merge_patch.body(r#"{"first":true}"#), 415);
        for id in [UNKNOWN_ID, of_bob] {
            let request = self.request("POST", &format!("/{id}/move")).json(json!({"after": a}).to_string());
            self.plan.ask(self.name(&format!("move {id} after a task")), request, 404);
        }
        // Tasks with the same position are in the order of their ids, and are spaced anew to make room.
        for id in [&a, &b, &c] {
            let request = self.request("PATCH", &format!("/{id}")).json(r#"{"position":"a0"}"#);
            self.show(&format!("the same position: {id}"), request, 200, json!({"position": "a0"}));
        }
        let request = self.request("POST", &format!("/{d}/move")).json(json!({"after": a}).to_string());
        self.show("move: where there is no room", request, 200, json!({"id": d}));
        self.list("?sort=position", &["a", "d", "b", "c"]);
        let shown = json!({"version": 2, "position": "a0"});
        self.show("move: a neighbour that stays", self.request("GET", &format!("/{b}")), 200, shown);
    }
}

/// The members of a task, and a title if they have none.
fn with_title(mut members: Value) -> String {
    if members.get("title").is_none() {
        members["title"] = "x".into();
    }
    members.to_string()
}
