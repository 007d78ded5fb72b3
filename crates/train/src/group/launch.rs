//! Which of several processes this is, as the launcher says in the environment.

use crate::error::{Error, Result};

/// A process among those of one training run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// From 0; rank 0 logs, saves and draws.
    pub rank: usize,
    /// Number of processes.
    pub world: usize,
    /// Among the processes of this machine: which GPU is its own.
    pub local_rank: usize,
    /// Where rank 0 listens; empty where there is one process.
    pub host: String,
    pub port: u16,
}

/// The variables of one launcher: rank, number of processes, rank on the machine.
const LAUNCHERS: [[&str; 3]; 3] = [
    // torchrun.
    ["RANK", "WORLD_SIZE", "LOCAL_RANK"],
    // mpirun of Open MPI.
    [
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
    ],
    // srun.
    ["SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"],
];

/// Where MASTER_PORT says nothing: torch's.
const DEFAULT_PORT: u16 = 29500;

impl Launch {
    /// The only process.
    pub fn alone() -> Self {
        Self {
            rank: 0,
            world: 1,
            local_rank: 0,
            host: String::new(),
            port: 0,
        }
    }

    pub fn from_env() -> Result<Self> {
        Self::from(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let launcher = LAUNCHERS.into_iter().find(|[rank, ..]| variable(rank).is_some());
        let Some([rank_name, world_name, local_name]) = launcher else {
            return Ok(Self::alone());
        };
        let number = |name: &str| -> Result<Option<usize>> {
            let Some(text) = variable(name) else { return Ok(None) };
            let number = text.trim().parse().map(Some);
            number.map_err(|_| Error::Launch(format!("{name} is {text:?}, expected a number")))
        };
        let rank = number(rank_name)?.unwrap_or(0);
        let Some(world) = number(world_name)? else {
            return Err(Error::Launch(format!("{rank_name} is set, but {world_name} is not")));
        };
        if rank >= world {
            let message = format!("{rank_name} is {rank}, but {world_name} is {world}: ranks are 0 to one less");
            return Err(Error::Launch(message));
        }
        if world == 1 {
            return Ok(Self::alone());
        }
        let Some(host) = variable("MASTER_ADDR") else {
            let message = format!(
                "{world_name} is {world}, but MASTER_ADDR is not set: export the name of rank 0's machine, or start one process"
            );
            return Err(Error::Launch(message));
        };
        Ok(Self {
            rank,
            world,
            local_rank: number(local_name)?.unwrap_or(rank),
            host,
            port: port(&variable)?,
        })
    }

    pub fn is_first(&self) -> bool {
        self.rank == 0
    }
}

fn port(variable: &impl Fn(&str) -> Option<String>) -> Result<u16> {
    // torchrun itself listens at MASTER_PORT then.
    let taken = u16::from(variable("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True"));
    let Some(text) = variable("MASTER_PORT") else {
        return Ok(DEFAULT_PORT + taken);
    };
    let port: Option<u16> = text.trim().parse().ok().filter(|port| *port > 0);
    port.and_then(|port| port.checked_add(taken))
        .ok_or_else(|| Error::Launch(format!("MASTER_PORT is {text:?}, expected a number from 1 to 65535")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(variables: &[(&str, &str)]) -> Result<Launch> {
        Launch::from(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn each_launcher_says_who_is_who() {
        let master = [("MASTER_ADDR", "node7"), ("MASTER_PORT", "4000")];
        for [rank, world, local] in LAUNCHERS {
            let launch = launch(&[&master[..], &[(rank, "5"), (world, "8"), (local, "1")]].concat()).unwrap();
            assert_eq!((launch.rank, launch.world, launch.local_rank), (5, 8, 1));
            assert_eq!((launch.host.as_str(), launch.port), ("node7", 4000));
        }
        assert_eq!(launch(&master).unwrap(), Launch::alone());
        assert_eq!(
            launch(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "1")]).unwrap(),
            Launch::alone()
        );
    }

    #[test]
    fn torchruns_own_port_is_left_to_it() {
        let torchrun = [
            ("RANK", "0"),
            ("WORLD_SIZE", "2"),
            ("MASTER_ADDR", "a"),
            ("TORCHELASTIC_USE_AGENT_STORE", "True"),
        ];
        assert_eq!(launch(&torchrun).unwrap().port, DEFAULT_PORT + 1);
        assert!(launch(&[&torchrun[..], &[("MASTER_PORT", "65535")]].concat()).is_err());
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let refused = |variables: &[(&str, &str)], words: &[&str]| {
            let error = launch(variables).unwrap_err().to_string();
            for word in words {
                assert!(error.contains(word), "{word:?} is not in: {error}");
            }
        };
        refused(&[("RANK", "0")], &["RANK is set", "WORLD_SIZE is not"]);
        refused(&[("RANK", "2"), ("WORLD_SIZE", "2")], &["RANK is 2", "WORLD_SIZE is 2"]);
        refused(&[("RANK", "0"), ("WORLD_SIZE", "0")], &["WORLD_SIZE is 0"]);
        refused(&[("RANK", "one"), ("WORLD_SIZE", "2")], &["RANK is \"one\""]);
        refused(
            &[("RANK", "0"), ("WORLD_SIZE", "2")],
            &["WORLD_SIZE is 2", "MASTER_ADDR"],
        );
        let both = [("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "a")];
        refused(
            &[&both[..], &[("MASTER_PORT", "0")]].concat(),
            &["MASTER_PORT is \"0\""],
        );
    }
}
