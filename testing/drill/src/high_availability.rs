//! The leader of a cluster with Patroni is killed, frozen, cut off, and replaced on purpose, under load.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use tokio::{task::block_in_place, time::sleep};

use crate::{
    Failure,
    cluster::Cluster,
    drills::Drill,
    host::Host,
    load::{Load, USERS},
    options::Options,
    report::Row,
    scene::{DATABASE_DOWN, IDLE, by_secret, finish, with_secret},
    tally::Tally,
};

/// How often each fault happens, unless `--rounds` says otherwise.
const ROUNDS: u32 = 3;
/// How long writes may stop: the lease of the leader (`ttl`), twice `loop_wait`, and a margin for a busy machine.
const MAX_PAUSE: Duration = Duration::from_secs(45);
/// How long the load runs before the fault, after writes have succeeded again, and after the cluster is whole again.
const BEFORE: Duration = Duration::from_secs(3);
const AFTER: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Kill,
    Freeze,
    CutOff,
    SwitchOver,
}

impl Fault {
    const ALL: [Self; 4] = [Self::Kill, Self::Freeze, Self::CutOff, Self::SwitchOver];

    const fn name(self) -> &'static str {
        match self {
            Self::Kill => "leader killed",
            Self::Freeze => "leader frozen",
            Self::CutOff => "leader cut off",
            Self::SwitchOver => "switch-over",
        }
    }
}

/// What one round has shown.
struct Round {
    fault: Fault,
    is_synchronous: bool,
    /// The longest time without a successful write: until another leader was there, and when the old one came back.
    pause: Duration,
    pause_at_return: Duration,
    /// From the fault to the last request that failed, before the old leader came back.
    last_failure: Duration,
    /// From the return of the old leader until all machines were in order.
    whole_after: Duration,
    /// Tasks that the last check of all tasks found lost.
    lost_tasks: u64,
    /// Writes of a client beside the cut-off leader: acknowledged, and of these lost.
    beside: (usize, usize),
    tally: Tally,
}

/// All faults with synchronous replication, and all without, where acknowledged writes may be lost.
pub(crate) async fn high_availability(options: &Options) -> Result<Row, Failure> {
    let drill = Drill::HighAvailability;
    let cluster = block_in_place(|| Cluster::start(&options.out))?;
    let mut scene = Scene { cluster, rounds: Vec::new(), number: 0 };
    let setup = with_secret(drill, options, &scene.cluster.url());
    let mut hosts = vec![Host::start(&setup)?, Host::start(&setup)?];
    for host in &mut hosts {
        host.wait_until_ready().await?;
    }
    for is_synchronous in [true, false] {
        let setting = format!("synchronous_mode={is_synchronous}");
        block_in_place(|| scene.cluster.control(&["edit-config", "--force", "--quiet", "--set", &setting]))?;
        for fault in Fault::ALL {
            for round in 1..=options.rounds.unwrap_or(ROUNDS) {
                eprintln!("drill: {}: {}, {setting}, round {round}", drill.name(), fault.name());
                let is_sabotaged = options.sabotage && is_synchronous && fault == Fault::Kill && round == 1;
                scene.round(fault, is_synchronous, is_sabotaged, &hosts, options).await?;
            }
        }
    }
    let mut load = Load::of_users("theLastOnes", 1, &[hosts[0].address()], &by_secret());
    let mut row = finish(drill, &setup, &mut load, hosts, None, DATABASE_DOWN, false).await?;
    row.notes = vec![block_in_place(Cluster::versions)?];
    row.table = Some(table(&scene.rounds));
    for round in scene.rounds {
        row.failures.extend(failures(&round));
        if round.is_synchronous {
            row.tally.add(round.tally);
        }
    }
    Ok(row)
}

struct Scene {
    cluster: Cluster,
    rounds: Vec<Round>,
    number: usize,
}

impl Scene {
    async fn round(
        &mut self,
        fault: Fault,
        is_synchronous: bool,
        is_sabotaged: bool,
        hosts: &[Host],
        options: &Options,
    ) -> Result<(), Failure> {
        block_in_place(|| self.cluster.wait_until_whole(Some(is_synchronous)))?;
        // Users of their own, so that what one round has lost is not found again in the next.
        self.number += 1;
        let addresses: Vec<_> = hosts.iter().map(Host::address).collect();
        let mut load = Load::of_users(&format!("round{:02}of", self.number), USERS, &addresses, &by_secret());
        load.fill().await;
        load.start(options.rate);
        sleep(BEFORE).await;
        let leader = self.cluster.leader().ok_or("there is no leader")?;
        let from_here = u32::try_from(self.number * 10_000)?;

        let begun = Instant::now();
        load.watch();
        let stop = AtomicBool::new(fault != Fault::CutOff);
        let machine = &self.cluster.machines[leader];
        let (until, acknowledged) = thread::scope(|scope| -> Result<_, Failure> {
            let stopped = || stop.load(Ordering::Relaxed);
            let beside = scope.spawn(move || machine.probe(from_here, &stopped).map_err(|error| error.to_string()));
            let until = block_in_place(|| -> Result<_, Failure> {
                match fault {
                    Fault::Kill => machine.kill()?,
                    Fault::Freeze => machine.freeze()?,
                    Fault::CutOff => machine.cut_off()?,
                    Fault::SwitchOver => {
                        let name = machine.name();
                        self.cluster.control(&["switchover", "--leader", &name, "--force"])?;
                    }
                }
                // Writes must succeed that were sent after this.
                let moment = Instant::now();
                while !load.has_written_since(moment) && begun.elapsed() < 2 * MAX_PAUSE {
                    thread::sleep(Duration::from_millis(20));
                }
                thread::sleep(AFTER);
                Ok(moment)
            });
            stop.store(true, Ordering::Relaxed);
            Ok((until?, beside.join().map_err(|_| "a thread has panicked")??))
        })?;
        let (pause, last_failure) = load.watch();
        if !load.has_written_since(until) {
            return Err(format!("{}: no write succeeds again", fault.name()).into());
        }

        let returned = Instant::now();
        match fault {
            Fault::Kill => self.cluster.machines[leader].start()?,
            Fault::Freeze => self.cluster.machines[leader].thaw()?,
            Fault::CutOff => self.cluster.machines[leader].connect()?,
            Fault::SwitchOver => {}
        }
        // What the cluster says is up to a round of Patroni old.
        sleep(AFTER).await;
        block_in_place(|| self.cluster.wait_until_whole(Some(is_synchronous)))?;
        let whole_after = returned.elapsed();
        sleep(AFTER).await;
        let (pause_at_return, _) = load.watch();
        load.stop().await;
        // PostgreSQL executes no more writes.
        sleep(IDLE).await;
        let leader = self.cluster.leader().ok_or("there is no leader")?;
        if is_sabotaged {
            let (user, id) = load.victim().ok_or("there is no task")?;
            let statement = format!("delete from todo.tasks where user_id = '{user}' and id = '{id}'");
            block_in_place(|| self.cluster.sql_of_todo(leader, &statement))?;
        }
        let found = load.tally().lost;
        load.check_everything().await?;
        let kept = block_in_place(|| self.cluster.sql(leader, "select number from probe"))?;
        let kept: Vec<u32> = kept.lines().filter_map(|line| line.parse().ok()).collect();
        let lost = acknowledged.iter().filter(|(number, _)| !kept.contains(number)).count();
        let tally = std::mem::take(&mut *load.tally());
        eprintln!(
            "drill: no write for {pause:?}, at the return for {pause_at_return:?}; whole again after {whole_after:?}; {} lost, {} \
             wrong; beside the old leader {} acknowledged, {lost} lost; {:?}",
            tally.lost,
            tally.wrong,
            acknowledged.len(),
            tally.examples
        );
        self.rounds.push(Round {
            fault,
            is_synchronous,
            pause,
            pause_at_return,
            last_failure: last_failure.unwrap_or_default(),
            whole_after,
            lost_tasks: tally.lost - found,
            beside: (acknowledged.len(), lost),
            tally,
        });
        Ok(())
    }
}

fn failures(round: &Round) -> Vec<String> {
    let Round { fault, is_synchronous, pause, beside, tally, .. } = round;
    let mut failures = Vec::new();
    if *pause > MAX_PAUSE {
        failures.push(format!("{}: no write succeeded for {} ms", fault.name(), pause.as_millis()));
    }
    if !is_synchronous {
        // Losses are allowed. The servers must respond all the same.
        if tally.timed_out + tally.connections_lost + tally.not_connected > 0 {
            failures.push(format!("{}, without synchronous replication: requests without a response", fault.name()));
        }
    } else if beside.1 > 0 {
        failures.push(format!("{}: {} writes that the old leader acknowledged are lost", fault.name(), beside.1));
    }
    failures
}

fn table(rounds: &[Round]) -> String {
    let mut table = String::from(
        "| replication | fault | rounds | acknowledged writes | lost responses, lost tasks | wrong | no write for (s) | last failed \
         request after (s) | no write at the return (s) | whole again after (s) | 503 | beside the old leader: acknowledged, lost |\n\
         | --- | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |\n",
    );
    for is_synchronous in [true, false] {
        for fault in Fault::ALL {
            let rounds: Vec<_> =
                rounds.iter().filter(|round| round.fault == fault && round.is_synchronous == is_synchronous).collect();
            let sum = |count: fn(&Round) -> u64| rounds.iter().map(|round| count(round)).sum::<u64>();
            let each = |time: fn(&Round) -> Duration| {
                let times: Vec<_> = rounds.iter().map(|round| format!("{:.1}", time(round).as_secs_f64())).collect();
                times.join(", ")
            };
            let beside = match fault {
                Fault::CutOff => {
                    format!("{}, {}", sum(|round| round.beside.0 as u64), sum(|round| round.beside.1 as u64))
                }
                _ => "–".to_owned(),
            };
            // Writing to a string does not fail.
            let _ = writeln!(
                table,
                "| {} | {} | {} | {} | {}, {} | {} | {} | {} | {} | {} | {} | {beside} |",
                if is_synchronous { "synchronous" } else { "asynchronous" },
                fault.name(),
                rounds.len(),
                sum(|round| round.tally.acknowledged),
                sum(|round| round.tally.lost),
                sum(|round| round.lost_tasks),
                sum(|round| round.tally.wrong),
                each(|round| round.pause),
                each(|round| round.last_failure),
                each(|round| round.pause_at_return),
                each(|round| round.whole_after),
                sum(|round| round.tally.unavailable.len() as u64),
            );
        }
    }
    table
}
