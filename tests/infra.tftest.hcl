# terraform test: what infra.tf promises, tried without an AWS account. The mocked provider makes nothing; it answers
# with the values below where AWS would, and invents the rest. Runs share one state, as successive applies would.
#
# Not seen from here: what only AWS can refuse.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
  mock_resource "aws_sns_topic" {
    defaults = { arn = "arn:aws:sns:eu-west-1:111122223333:email-feedback" }
  }
  mock_resource "aws_sns_topic_subscription" {
    defaults = { pending_confirmation = false }
  }
  mock_resource "aws_sqs_queue" {
    defaults = {
      arn = "arn:aws:sqs:eu-west-1:111122223333:email-feedback"
      url = "https://sqs.eu-west-1.amazonaws.com/111122223333/email-feedback"
    }
  }
  mock_resource "aws_sesv2_configuration_set" {
    defaults = { arn = "arn:aws:ses:eu-west-1:111122223333:configuration-set/email-feedback" }
  }
  mock_resource "aws_iam_policy" {
    defaults = { arn = "arn:aws:iam::111122223333:policy/email-feedback-receiver" }
  }
  mock_resource "aws_iam_access_key" {
    defaults = {
      id               = "AKIAIOSFODNN7EXAMPLE"
      secret           = "this-is-the-secret"
      encrypted_secret = "this-is-encrypted"
    }
  }
}

# --- the order in which things are made -------------------------------------------------------------------------------
# With a target, only that target and what it waits for is made, and of the outputs only those come out whose resources
# are among these. So an output tells that its resource comes first. These runs come before all others, while there is
# nothing yet. (Terraform warns that targets are for emergencies; here they are the point.)

run "the_webhook_is_subscribed_before_events_are_sent" {
  command = plan
  variables { webhook_url = "https://feedback.example.com/sns" }
  plan_options { target = [aws_sesv2_configuration_set_event_destination.feedback] }
  assert {
    condition     = try(output.webhook_url, null) == "https://feedback.example.com/sns"
    error_message = "SNS drops what nobody is subscribed to"
  }
}

run "the_queue_lets_the_topic_in_before_it_takes_dead_letters" {
  variables { webhook_url = "https://feedback.example.com/sns" }
  plan_options { target = [aws_sns_topic_subscription.webhook] }
  assert {
    condition     = try(output.queue_url, null) == aws_sqs_queue.feedback.url
    error_message = "dead letters that come before the queue's policy are lost"
  }
}

run "the_topic_lets_ses_in_before_events_are_sent" {
  plan_options { target = [aws_sesv2_configuration_set_event_destination.feedback] }
  assert {
    condition     = try(output.topic_arn, null) == aws_sns_topic.feedback.arn
    error_message = "SES publishes a test message while the destination is made: the topic's policy has to be there first"
  }
}

# --- the first apply: nothing set -------------------------------------------------------------------------------------

run "without_a_webhook_the_queue_is_subscribed" {
  assert {
    condition     = length(aws_sns_topic_subscription.webhook) == 0
    error_message = "there is no webhook to subscribe"
  }
  assert {
    condition     = aws_sns_topic_subscription.queue[0].protocol == "sqs" && aws_sns_topic_subscription.queue[0].endpoint == aws_sqs_queue.feedback.arn
    error_message = "the queue must be subscribed"
  }
  assert {
    condition     = aws_sns_topic_subscription.queue[0].raw_message_delivery != true
    error_message = "raw messages carry no signature"
  }
  assert {
    condition     = length(aws_cloudwatch_metric_alarm.feedback) == 0
    error_message = "nobody to tell, no alarms"
  }
}

run "events_flow_and_allow_rates" {
  assert {
    condition     = aws_sesv2_configuration_set_event_destination.feedback.event_destination[0].enabled == true
    error_message = "the event destination must be enabled"
  }
  assert {
    condition     = aws_sesv2_configuration_set_event_destination.feedback.event_destination[0].sns_destination[0].topic_arn == aws_sns_topic.feedback.arn
    error_message = "events must go to the topic"
  }
  assert {
    condition = aws_sesv2_configuration_set_event_destination.feedback.event_destination[0].matching_event_types == toset([
      "BOUNCE", "COMPLAINT", "DELIVERY", "DELIVERY_DELAY", "REJECT", "RENDERING_FAILURE", "SUBSCRIPTION",
    ])
    error_message = "the default kinds, with DELIVERY for the rates and without OPEN and CLICK"
  }
}

run "the_topic_signs_with_sha256" {
  assert {
    condition     = aws_sns_topic.feedback.signature_version == 2
    error_message = "signature version 2 is SHA-256"
  }
}

run "only_this_configuration_set_publishes" {
  assert {
    condition = jsondecode(aws_sns_topic_policy.feedback.policy).Statement == [{
      Sid       = "ConfigurationSetPublishes"
      Effect    = "Allow"
      Principal = { Service = "ses.amazonaws.com" }
      Action    = "sns:Publish"
      Resource  = "arn:aws:sns:eu-west-1:111122223333:email-feedback"
      Condition = { StringEquals = {
        "AWS:SourceAccount" = "111122223333"
        "AWS:SourceArn"     = "arn:aws:ses:eu-west-1:111122223333:configuration-set/email-feedback"
      } }
    }]
    error_message = "the topic must take messages from this account's configuration set alone"
  }
}

run "only_the_topic_fills_the_queue" {
  assert {
    condition = jsondecode(aws_sqs_queue_policy.feedback.policy).Statement == [{
      Sid       = "TopicSends"
      Effect    = "Allow"
      Principal = { Service = "sns.amazonaws.com" }
      Action    = "sqs:SendMessage"
      Resource  = "arn:aws:sqs:eu-west-1:111122223333:email-feedback"
      Condition = { ArnEquals = { "aws:SourceArn" = "arn:aws:sns:eu-west-1:111122223333:email-feedback" } }
    }]
    error_message = "the queue must take messages from the topic alone"
  }
  assert {
    condition     = aws_sqs_queue_policy.feedback.queue_url == aws_sqs_queue.feedback.url
    error_message = "the policy must be the queue's"
  }
}

run "the_queue_keeps_for_14_days" {
  assert {
    condition     = aws_sqs_queue.feedback.message_retention_seconds == 14 * 24 * 60 * 60
    error_message = "14 days is the longest there is, and shorter loses feedback"
  }
  assert {
    condition     = aws_sqs_queue.feedback.sqs_managed_sse_enabled == true && aws_sqs_queue.feedback.receive_wait_time_seconds == 20
    error_message = "encrypted, and polled without haste"
  }
}

# --- the receiver's permissions and its secret ------------------------------------------------------------------------

run "the_receiver_may_receive_and_delete" {
  assert {
    condition = jsondecode(aws_iam_policy.receiver.policy).Statement == [{
      Sid      = "DrainQueue"
      Effect   = "Allow"
      Action   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]
      Resource = "arn:aws:sqs:eu-west-1:111122223333:email-feedback"
    }]
    error_message = "receive, delete and count on the one queue, nothing else"
  }
  assert {
    condition     = aws_iam_user_policy_attachment.receiver[0].policy_arn == aws_iam_policy.receiver.arn && length(aws_iam_role_policy_attachment.receiver) == 0
    error_message = "the user, and only the user, has the policy"
  }
}

run "settings_are_ready_to_use" {
  assert {
    condition     = output.settings == <<-EOT
      Sns__TopicArns__0=arn:aws:sns:eu-west-1:111122223333:email-feedback
      Sns__MinimumSignatureVersion=2
      Sqs__QueueUrl=https://sqs.eu-west-1.amazonaws.com/111122223333/email-feedback
      AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE
    EOT
    error_message = "settings must be the lines of an environment file"
  }
  assert {
    condition     = output.topic_arn == aws_sns_topic.feedback.arn && output.queue_url == aws_sqs_queue.feedback.url && output.access_key_id == "AKIAIOSFODNN7EXAMPLE" && output.configuration_set_name == "email-feedback"
    error_message = "the same values must be there one by one"
  }
}

run "the_secret_is_only_in_the_sensitive_output" {
  assert {
    condition     = nonsensitive(output.secret_settings) == "AWS_SECRET_ACCESS_KEY=this-is-the-secret\n"
    error_message = "the secret must be to be had"
  }
  assert {
    condition     = issensitive(output.secret_settings)
    error_message = "the secret must be marked as sensitive"
  }
  assert {
    condition = !strcontains(jsonencode([
      output.settings, output.topic_arn, output.queue_url, output.access_key_id, output.encrypted_secret_access_key,
      output.configuration_set_name, output.webhook_url, output.receiver_policy_arn,
    ]), "this-is-the-secret")
    error_message = "no other output may hold the secret"
  }
}

run "pgp_keeps_the_secret_out_of_the_outputs" {
  variables { pgp_key = "keybase:someone" }
  assert {
    condition     = aws_iam_access_key.receiver[0].pgp_key == "keybase:someone" && output.encrypted_secret_access_key == "this-is-encrypted"
    error_message = "the key must be encrypted to pgp_key"
  }
  assert {
    condition     = nonsensitive(output.secret_settings) == ""
    error_message = "there is no secret in the clear"
  }
}

run "source_addresses_bind_the_permissions" {
  variables { receiver_cidrs = ["203.0.113.7/32"] }
  assert {
    condition     = jsondecode(aws_iam_policy.receiver.policy).Statement[0].Condition == { IpAddress = { "aws:SourceIp" = ["203.0.113.7/32"] } }
    error_message = "the permissions must hold from these addresses only"
  }
}

run "an_instance_role_takes_the_place_of_user_and_key" {
  variables { instance_role_name = "mail-host" }
  assert {
    condition     = length(aws_iam_user.receiver) == 0 && length(aws_iam_access_key.receiver) == 0 && output.access_key_id == null && nonsensitive(output.secret_settings) == ""
    error_message = "no user and no key beside the role"
  }
  assert {
    condition     = aws_iam_role_policy_attachment.receiver[0].role == "mail-host" && aws_iam_role_policy_attachment.receiver[0].policy_arn == aws_iam_policy.receiver.arn
    error_message = "the role must have the policy"
  }
}

# --- the second apply: with the webhook -------------------------------------------------------------------------------

run "the_queue_stays_subscribed_during_a_change_over" {
  variables {
    webhook_url     = "https://feedback.example.com/sns"
    subscribe_queue = true
  }
  assert {
    condition     = length(aws_sns_topic_subscription.webhook) == 1 && length(aws_sns_topic_subscription.queue) == 1
    error_message = "both must be subscribed"
  }
}

run "the_webhook_is_subscribed_in_place_of_the_queue" {
  variables { webhook_url = "https://feedback.example.com/sns" }
  assert {
    condition     = length(aws_sns_topic_subscription.queue) == 0
    error_message = "the queue is for dead letters now"
  }
  assert {
    condition     = aws_sns_topic_subscription.webhook[0].protocol == "https" && aws_sns_topic_subscription.webhook[0].endpoint == var.webhook_url && output.webhook_url == var.webhook_url
    error_message = "the webhook must be subscribed"
  }
  assert {
    condition     = aws_sns_topic_subscription.webhook[0].endpoint_auto_confirms == true
    error_message = "apply must wait for the confirmation"
  }
  assert {
    condition     = aws_sns_topic_subscription.webhook[0].raw_message_delivery != true
    error_message = "raw messages carry no signature"
  }
}

run "what_the_webhook_misses_goes_to_the_queue" {
  variables { webhook_url = "https://feedback.example.com/sns" }
  assert {
    condition     = try(jsondecode(aws_sns_topic_subscription.webhook[0].redrive_policy), null) == { deadLetterTargetArn = aws_sqs_queue.feedback.arn }
    error_message = "the queue must be the dead-letter queue"
  }
}

run "retries_last_as_long_as_sns_allows" {
  variables { webhook_url = "https://feedback.example.com/sns" }
  assert {
    condition = alltrue([for p in [jsondecode(aws_sns_topic_subscription.webhook[0].delivery_policy).healthyRetryPolicy] :
      p.numRetries <= 100
      && p.numNoDelayRetries + p.numMinDelayRetries + p.numMaxDelayRetries <= p.numRetries
      && p.numMinDelayRetries * p.minDelayTarget + (p.numRetries - p.numNoDelayRetries - p.numMinDelayRetries) * p.maxDelayTarget <= 3600
    ])
    error_message = "SNS refuses more than 100 retries or 3600 s, reckoned with the longest pauses"
  }
  assert {
    condition = alltrue([for p in [jsondecode(aws_sns_topic_subscription.webhook[0].delivery_policy).healthyRetryPolicy] :
      p.numMaxDelayRetries * p.maxDelayTarget >= 3000
    ])
    error_message = "shorter retries waste what SNS offers: at least 50 minutes"
  }
}

run "no_throttle_holds_feedback_back" {
  variables { webhook_url = "https://feedback.example.com/sns" }
  assert {
    condition     = try(jsondecode(aws_sns_topic_subscription.webhook[0].delivery_policy).throttlePolicy.maxReceivesPerSecond, 1000) >= 1000
    error_message = "a throttle, if there is one, must let 1,000 deliveries a second through"
  }
}

run "alarms_tell_the_operators" {
  variables {
    webhook_url   = "https://feedback.example.com/sns"
    alarm_actions = ["arn:aws:sns:eu-west-1:111122223333:operators"]
  }
  assert {
    condition     = keys(aws_cloudwatch_metric_alarm.feedback) == ["bounce-rate", "complaint-rate", "feedback-lost", "queue-not-drained", "webhook-down"]
    error_message = "five alarms"
  }
  assert {
    condition     = alltrue([for a in aws_cloudwatch_metric_alarm.feedback : a.alarm_actions == toset(var.alarm_actions)])
    error_message = "each alarm must tell the operators"
  }
}

run "a_webhook_without_its_path_is_warned_of" {
  variables { webhook_url = "https://feedback.example.com/" }
  expect_failures = [check.webhook_path]
}

run "more_events_can_be_collected" {
  variables { event_types = ["BOUNCE", "COMPLAINT", "DELIVERY", "SEND"] }
  assert {
    condition     = aws_sesv2_configuration_set_event_destination.feedback.event_destination[0].matching_event_types == toset(["BOUNCE", "COMPLAINT", "DELIVERY", "SEND"])
    error_message = "event_types must reach SES"
  }
}

run "a_webhook_that_did_not_confirm_is_warned_of" {
  variables {
    webhook_url           = "https://feedback.example.com/sns"
    wait_for_confirmation = false
  }
  override_resource {
    target = aws_sns_topic_subscription.webhook
    values = { pending_confirmation = true }
  }
  assert {
    condition     = aws_sns_topic_subscription.webhook[0].endpoint_auto_confirms == false
    error_message = "apply must not wait"
  }
  expect_failures = [check.webhook_confirmed]
}

# --- what is refused before anything is made --------------------------------------------------------------------------

run "plain_http_is_refused" {
  command = plan
  variables { webhook_url = "http://feedback.example.com/sns" }
  expect_failures = [var.webhook_url]
}

run "a_password_in_the_url_is_refused" {
  command = plan
  variables { webhook_url = "https://user:password@feedback.example.com/sns" }
  expect_failures = [var.webhook_url]
}

run "an_underscore_in_the_host_is_refused" {
  command = plan
  variables { webhook_url = "https://feed_back.example.com/sns" }
  expect_failures = [var.webhook_url]
}

run "lower_case_events_are_refused" {
  command = plan
  variables { event_types = ["BOUNCE", "COMPLAINT", "send"] }
  expect_failures = [var.event_types]
}

run "events_without_complaints_are_refused" {
  command = plan
  variables { event_types = ["BOUNCE", "DELIVERY"] }
  expect_failures = [var.event_types]
}

run "nothing_subscribed_is_refused" {
  command = plan
  variables { subscribe_queue = false }
  expect_failures = [var.subscribe_queue]
}

run "an_address_that_is_no_block_is_refused" {
  command = plan
  variables { receiver_cidrs = ["203.0.113.7"] }
  expect_failures = [var.receiver_cidrs]
}

run "alarms_into_the_feedback_topic_are_refused" {
  command = plan
  variables { alarm_actions = ["arn:aws:sns:eu-west-1:111122223333:email-feedback"] }
  expect_failures = [aws_cloudwatch_metric_alarm.feedback]
}
