//! An agent played by the test, over a real session: it does at once what it is told.

use tenon_journal::output::{ChunkBuilder, Stream};
use tenon_proto::agent::v1::agents_client::AgentsClient;
use tenon_proto::agent::v1::coordinator_message::Message;
use tenon_proto::agent::v1::report::What;
use tenon_proto::agent::v1::{
    AgentMessage, AttemptId, CoordinatorMessage, Ended, Ending, Hello, Output, Ran, Report,
    StepEnded, StepStarted, WorkspaceUse, agent_message, ended,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// The agent's end of a session.
pub struct Agent {
    pub outbox: mpsc::Sender<AgentMessage>,
    pub inbox: Streaming<CoordinatorMessage>,
    number: u64,
}

pub fn hello(name: &str, incarnation: &str) -> Hello {
    Hello {
        name: name.to_owned(),
        slots: 8,
        backends: vec!["host".to_owned()],
        incarnation: incarnation.to_owned(),
        ..Hello::default()
    }
}

impl Agent {
    /// Dials a node. The answer to a hello is a welcome or a refusal.
    pub async fn dial(url: &str, hello: Hello) -> Result<Agent, Status> {
        let mut client = AgentsClient::connect(url.to_owned()).await.unwrap();
        let (outbox, messages) = mpsc::channel(64);
        let said = AgentMessage { message: Some(agent_message::Message::Hello(hello)) };
        outbox.send(said).await.unwrap();
        let session = client.session(ReceiverStream::new(messages)).await?;
        Ok(Agent { outbox, inbox: session.into_inner(), number: 0 })
    }

    /// Begins with the number 1 again.
    pub fn again(&mut self) -> &mut Agent {
        self.number = 0;
        self
    }

    pub async fn hear(&mut self) -> Result<Message, Status> {
        let message = tokio::time::timeout(super::LATE, self.inbox.message()).await;
        match message.expect("the node says nothing")? {
            Some(message) => Ok(message.message.expect("a message that says nothing")),
            None => Err(Status::ok("ended without a reason")),
        }
    }

    async fn report(&mut self, attempt: &AttemptId, what: What) {
        self.number += 1;
        let report = Report {
            number: self.number,
            attempt: Some(attempt.clone()),
            time_ms: 1_000,
            what: Some(what),
        };
        let message = Some(agent_message::Message::Report(report));
        // The session may have ended; the test sees that by what does not happen.
        let _ = self.outbox.send(AgentMessage { message }).await;
    }

    /// Says that an attempt went well, with some lines of output.
    pub async fn succeed(&mut self, attempt: &AttemptId) {
        self.end(attempt, 0).await;
    }

    pub async fn end(&mut self, attempt: &AttemptId, exit_code: i32) {
        self.end_with(attempt, exit_code, Vec::new()).await;
    }

    /// The same, with what became of its workspaces.
    pub async fn end_with(
        &mut self,
        attempt: &AttemptId,
        exit_code: i32,
        workspaces: Vec<WorkspaceUse>,
    ) {
        let mut chunk = ChunkBuilder::new();
        for line in ["one", "two", "three"] {
            chunk.push(1_000, Stream::Stdout, false, line).unwrap();
        }
        let (lines, chunk) = chunk.finish();
        let step = || "say".to_owned();
        self.report(attempt, What::Started(tenon_proto::agent::v1::Started {})).await;
        self.report(attempt, What::StepStarted(StepStarted { step: step() })).await;
        let output = Output { container: step(), sidecar: false, lines, chunk };
        self.report(attempt, What::Output(output)).await;
        let ending = if exit_code == 0 { Ending::default() } else { Ending::Error };
        let end = StepEnded {
            step: step(),
            started_at_ms: Some(1_000),
            exit_code,
            ending: ending as i32,
            ..StepEnded::default()
        };
        self.report(attempt, What::StepEnded(end)).await;
        let outcome = Some(ended::Outcome::Ran(Ran {}));
        self.report(attempt, What::Ended(Ended { outcome, workspaces })).await;
    }

    /// Does everything that it is told until the session ends.
    pub async fn work(mut self) {
        while let Ok(message) = self.hear().await {
            if let Message::Start(start) = message {
                self.succeed(&start.attempt.unwrap()).await;
            }
        }
    }
}
