//! The flags for the templates of `--dialect raw`, and for publishing with HTTP.

use clap::Args;

use crate::values::parse_time_ns;

/// Templates of the raw dialect.
#[derive(Debug, Args)]
#[command(next_help_heading = "Raw dialect")]
pub struct RawArguments {
    /// First message of every connection (greeting, token); may be repeated
    #[arg(long = "hello-template", value_name = "TEMPLATE")]
    pub hello: Vec<String>,
    /// The server has answered the greeting when a message contains this; until then loadgen sends nothing
    /// else. Without --hello-template the server greets first
    #[arg(long, value_name = "TEXT")]
    pub hello_when: Option<String>,
    /// Subscription: one message for each topic, as in '{"sub":"{topic}"}', or one for all, as in
    /// '{"sub":[{topics_json}]}'; without this flag subscribers send nothing
    #[arg(long, value_name = "TEMPLATE")]
    pub subscribe_template: Option<String>,
    /// A message that contains this acknowledges a subscription; without this flag subscribers count as
    /// ready at once, and publishing begins after --settle
    #[arg(long, value_name = "TEXT")]
    pub subscribed_when: Option<String>,
    /// Publication over a WebSocket, as in '{"pub":"{topic}","data":"{data}"}'
    #[arg(long, value_name = "TEMPLATE")]
    pub publish_template: Option<String>,
    /// When a message, or a line of one, is exactly HEARD, send SAID; may be repeated
    #[arg(long, num_args = 2, value_names = ["HEARD", "SAID"])]
    pub answer: Vec<String>,
    /// Pause between the last subscription and the first publication, if the server does not
    /// acknowledge subscriptions [default: 500ms for raw, otherwise none]
    #[arg(long, value_name = "TIME", value_parser = parse_time_ns)]
    pub settle: Option<u64>,
}

/// Publications with HTTP instead of a WebSocket.
#[derive(Debug, Args)]
#[command(next_help_heading = "Publishing with HTTP")]
pub struct PostArguments {
    /// tickring: publish with POST /api/v1/publish here, as in http://127.0.0.1:9002
    #[arg(long, value_name = "URL", conflicts_with = "publish_url")]
    pub publish_api: Option<String>,
    /// POST each publication here, as in 'http://127.0.0.1:8080/pub/{topic}'
    #[arg(long, value_name = "URL")]
    pub publish_url: Option<String>,
    /// Body of each --publish-url request
    #[arg(
        long,
        value_name = "TEMPLATE",
        default_value = "{data}",
        requires = "publish_url"
    )]
    pub publish_body: String,
    /// Content-Type of that body
    #[arg(
        long,
        value_name = "TYPE",
        default_value = "text/plain",
        requires = "publish_url"
    )]
    pub publish_content_type: String,
}
