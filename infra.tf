# From SES to the receiver, with nothing lost while the receiver is away.
#
#   webhook_url set:    SES -> topic --HTTPS--> receiver
#                                \-- what the receiver does not take --> queue -> receiver
#   no webhook_url:     SES -> topic --SQS--> queue -> receiver
#
# SNS offers an event to a webhook for an hour at the most, then drops it, and SES cannot be asked to repeat it.
# So a queue stands behind the webhook and keeps for 14 days what the webhook missed. The receiver polls that queue
# either way. Without a public address the queue is subscribed in the webhook's place and nothing else changes.
#
# Terraform in five lines, for those who meet it here:
#   terraform init      fetches the AWS provider, once
#   terraform apply     compares this file with what exists, shows the difference, asks, and makes it so
#   terraform output    prints the values at the end of this file, which the receiver needs as settings
#   terraform.tfvars    is where your values for the variables below go, one `name = value` a line
#   terraform.tfstate   remembers what was made. It may hold a secret: keep it, keep it private, never commit it
#
# It takes two applies, since each side has to know the other: one without webhook_url, whose outputs configure the
# receiver; then, with the receiver running, one with webhook_url. Attach the configuration set to mail after that.
# When the webhook comes or changes later, with mail flowing, see subscribe_queue.

terraform {
  required_version = ">= 1.9" # older ones cannot validate one variable against another

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.99, < 7.0"
    }
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = merge({ Application = var.name }, var.tags)
  }
}

# --- 1. variables -----------------------------------------------------------------------------------------------------
# Every one has a default, so that nothing but region and webhook_url need be set.

variable "name" {
  description = "Name of the configuration set, the topic and the queue, and the first part of every other name. Those of IAM are the same in all regions: give each region you set up a name of its own."
  type        = string
  default     = "email-feedback"

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9_-]{0,47}$", var.name))
    error_message = "name: 1 to 48 letters, digits, - and _, starting with a letter or a digit."
  }
}

variable "region" {
  description = "Region the mail is sent from: SES publishes to topics of its own region only. Null takes the region of your AWS environment or profile."
  type        = string
  default     = null
}

variable "webhook_url" {
  description = "Public address of the receiver, such as https://feedback.example.com/sns. Null subscribes the queue instead."
  type        = string
  default     = null

  validation {
    # SNS refuses an underscore in the host. A user name or password would be readable in the state, the logs and AWS.
    condition     = var.webhook_url == null ? true : can(regex("^https://[A-Za-z0-9.-]+(:[0-9]+)?(/[^[:space:]#]*)?$", var.webhook_url))
    error_message = "webhook_url: an https:// URL without user name, underscore in the host, blank or fragment."
  }
}

variable "subscribe_queue" {
  description = "Whether the queue takes every event itself. Null: only while there is no webhook. With mail flowing, set it to true when you add webhook_url, and apply with it before you change or remove that; take it out afterwards: Terraform removes the old subscription before or while it makes the new one, and what falls in between would be lost. Doubled events do no harm, the receiver counts each once."
  type        = bool
  default     = null

  validation {
    condition     = var.subscribe_queue == null ? true : var.subscribe_queue || var.webhook_url != null
    error_message = "subscribe_queue: false needs a webhook_url, or nobody would take the events."
  }
}

variable "wait_for_confirmation" {
  description = "Whether apply waits until the receiver has confirmed the webhook, and fails when it does not within five minutes."
  type        = bool
  default     = true
}

variable "event_types" {
  description = "Kinds of SES events to collect, in capitals."
  type        = set(string)

  # BOUNCE and COMPLAINT are what the receiver suppresses by; SUBSCRIPTION is a recipient's unsubscribe through SES.
  # DELIVERY is here because a rate is bounces or complaints divided by mails: with neither SEND nor DELIVERY collected,
  # the receiver can only call its rates unknown. It also tells a mailbox that recovered from one that keeps bouncing.
  # The other three are rare and say why a mail did not arrive.
  #
  # Left out: SEND, one more event for every mail; add it for bounce rates by SES's own denominator, or take DELIVERY
  # out as well where the volume hurts. OPEN and CLICK make SES put a pixel and its own links into the mail.
  # What each kind means: https://docs.aws.amazon.com/ses/latest/dg/event-publishing-retrieving-sns-contents.html
  default = ["BOUNCE", "COMPLAINT", "DELIVERY", "DELIVERY_DELAY", "REJECT", "RENDERING_FAILURE", "SUBSCRIPTION"]

  validation {
    condition = length(setsubtract(var.event_types, [
      "BOUNCE", "CLICK", "COMPLAINT", "DELIVERY", "DELIVERY_DELAY", "OPEN", "REJECT", "RENDERING_FAILURE", "SEND", "SUBSCRIPTION",
    ])) == 0
    error_message = "event_types: the kinds SES API v2 knows, in capitals, such as BOUNCE."
  }

  validation {
    condition     = length(setsubtract(["BOUNCE", "COMPLAINT"], var.event_types)) == 0
    error_message = "event_types: BOUNCE and COMPLAINT have to be there; without them nothing is ever suppressed."
  }
}

variable "create_access_key" {
  description = "Whether to make an IAM user with an access key for the receiver. Null: unless instance_role_name is set. Without pgp_key the secret stands in the state file."
  type        = bool
  default     = null
}

variable "pgp_key" {
  description = "PGP public key in base64 (gpg --export KEY | base64 -w0), or keybase:NAME. The secret access key is then kept only encrypted to it."
  type        = string
  default     = null
}

variable "receiver_cidrs" {
  description = "Addresses the receiver calls AWS from, such as 203.0.113.7/32. When set, its permissions hold from nowhere else, so a stolen key is worth nothing elsewhere."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for c in var.receiver_cidrs : can(cidrhost(c, 0))])
    error_message = "receiver_cidrs: CIDR blocks such as 203.0.113.7/32."
  }
}

variable "instance_role_name" {
  description = "Existing IAM role of the EC2 instance that runs the receiver. It gets the permissions, and no key has to be kept anywhere."
  type        = string
  default     = null
}

variable "alarm_actions" {
  description = "ARNs to tell of alarms, such as an SNS topic that mails the operators. Empty: no alarms are made."
  type        = list(string)
  default     = []
}

variable "tags" {
  description = "Tags for everything made here, beside Application."
  type        = map(string)
  default     = {}
}

data "aws_caller_identity" "current" {}

locals {
  webhook    = var.webhook_url != null
  queue      = coalesce(var.subscribe_queue, !local.webhook)
  access_key = coalesce(var.create_access_key, var.instance_role_name == null)
}

# --- 2. SES: the configuration set says what is reported, the event destination says where to -------------------------
# Only mail sent with this configuration set is reported. It makes no difference to any other mail of the account.

resource "aws_sesv2_configuration_set" "feedback" {
  configuration_set_name = var.name

  reputation_options {
    reputation_metrics_enabled = true
  }

  # The net under the net: SES itself refuses addresses that bounced or complained, should anyone forget to ask first.
  suppression_options {
    suppressed_reasons = ["BOUNCE", "COMPLAINT"]
  }
}

resource "aws_sesv2_configuration_set_event_destination" "feedback" {
  configuration_set_name = aws_sesv2_configuration_set.feedback.configuration_set_name
  event_destination_name = var.name

  event_destination {
    enabled              = true # the provider's default is false: all in place, and not one event
    matching_event_types = var.event_types

    sns_destination {
      # SES publishes a test message to the topic while this is made, and gives up if it is not allowed to. The topic's
      # policy therefore has to come first. It carries the same ARN as the topic, and by taking the ARN from there
      # the order is part of the value. "Could not publish" all the same: the policy had not spread yet; apply again.
      topic_arn = aws_sns_topic_policy.feedback.arn
    }
  }

  # Last of all: from here on events flow, and SNS drops what no confirmed subscription takes.
  depends_on = [aws_sns_topic_subscription.webhook, aws_sns_topic_subscription.queue]
}

# --- 3. SNS: the topic, who may publish to it, who gets what is published ---------------------------------------------

resource "aws_sns_topic" "feedback" {
  name = var.name

  # The receiver believes nothing but the signature. Version 2 signs with SHA-256; the default, 1, with SHA-1, which
  # some systems no longer accept. https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html
  signature_version = 2

  # No KMS key, on purpose. SES could not publish through alias/aws/sns at all, and a key of your own has to allow
  # ses.amazonaws.com kms:GenerateDataKey and kms:Decrypt, or making the event destination fails.
}

# SES may publish, for this account and this configuration set, and nobody of another account; users and roles of yours
# whose own policies allow sns:Publish still can, and SNS signs that, too. Both conditions are needed: SES serves
# every AWS customer under the one name ses.amazonaws.com, so "any SES" would let strangers send events to this topic,
# which SNS signs like our own. One statement is all: it replaces the default.
# https://docs.aws.amazon.com/ses/latest/dg/event-publishing-add-event-destination-sns.html
resource "aws_sns_topic_policy" "feedback" {
  arn = aws_sns_topic.feedback.arn

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "ConfigurationSetPublishes"
      Effect    = "Allow"
      Principal = { Service = "ses.amazonaws.com" }
      Action    = "sns:Publish"
      Resource  = aws_sns_topic.feedback.arn
      Condition = {
        StringEquals = {
          "AWS:SourceAccount" = data.aws_caller_identity.current.account_id
          "AWS:SourceArn"     = aws_sesv2_configuration_set.feedback.arn
        }
      }
    }]
  })
}

# `count` makes one of these when there is a webhook, and none otherwise.
resource "aws_sns_topic_subscription" "webhook" {
  count     = local.webhook ? 1 : 0
  topic_arn = aws_sns_topic.feedback.arn
  protocol  = "https"
  endpoint  = var.webhook_url

  # SNS first asks the address whether it wants the messages, and the receiver says yes by itself if it knows the topic.
  # "Auto confirms" only means that apply waits to see it happen.
  endpoint_auto_confirms          = var.wait_for_confirmation
  confirmation_timeout_in_minutes = 5

  # The default is 3 retries in one minute, which a reboot outlasts. SNS allows 100 retries and 3600 seconds in all, and
  # refuses more: https://docs.aws.amazon.com/sns/latest/dg/sns-message-delivery-retries.html
  # Here: 3 retries 5 s apart, 4 with the pause growing from 5 s to 60 s, then 55 a minute apart: about 57 minutes.
  # Were each pause of the growing part the longest, it would be 3*5 + 4*60 + 55*60 = 3555 s, so SNS takes it anyhow.
  #
  # There is no throttlePolicy. A limit delays feedback exactly when a large mailing needs it soonest, and the receiver
  # is made for 1,000 messages a second and more. When it cannot keep up it answers 503, and SNS comes back.
  delivery_policy = jsonencode({
    healthyRetryPolicy = {
      numRetries         = 62
      numNoDelayRetries  = 0
      numMinDelayRetries = 3
      numMaxDelayRetries = 55
      minDelayTarget     = 5
      maxDelayTarget     = 60
      backoffFunction    = "exponential"
    }
  })

  # Where a message goes when all retries failed: https://docs.aws.amazon.com/sns/latest/dg/sns-dead-letter-queues.html
  redrive_policy = jsonencode({ deadLetterTargetArn = aws_sqs_queue.feedback.arn })

  # raw_message_delivery stays off: a raw message has no signature, and the receiver would have nothing to check.
  # No create_before_destroy: SNS answers a second subscription of the same address with the first one, and destroying
  # "the old one" would then remove the only one.
  depends_on = [aws_sqs_queue_policy.feedback]
}

resource "aws_sns_topic_subscription" "queue" {
  count      = local.queue ? 1 : 0
  topic_arn  = aws_sns_topic.feedback.arn
  protocol   = "sqs"
  endpoint   = aws_sqs_queue.feedback.arn
  depends_on = [aws_sqs_queue_policy.feedback]
}

# --- 4. SQS: the queue keeps what the receiver has not taken yet ------------------------------------------------------

resource "aws_sqs_queue" "feedback" {
  name                       = var.name
  message_retention_seconds  = 1209600 # 14 days, the longest SQS offers; its default of 4 does not cover a long holiday
  receive_wait_time_seconds  = 20      # a poll waits this long for a message, so that an empty queue costs next to nothing
  visibility_timeout_seconds = 60      # a message taken but not deleted (the receiver died) comes back after this

  # Encrypted with SQS's own key. With a KMS key SNS would need to be let in, or the dead letters are lost in silence:
  # https://docs.aws.amazon.com/sns/latest/dg/sns-dead-letter-queues.html
  sqs_managed_sse_enabled = true
}

# SNS serves every AWS customer too, hence the condition: only our topic may put messages here.
# https://docs.aws.amazon.com/sns/latest/dg/subscribe-sqs-queue-to-sns-topic.html
resource "aws_sqs_queue_policy" "feedback" {
  queue_url = aws_sqs_queue.feedback.url

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "TopicSends"
      Effect    = "Allow"
      Principal = { Service = "sns.amazonaws.com" }
      Action    = "sqs:SendMessage"
      Resource  = aws_sqs_queue.feedback.arn
      Condition = { ArnEquals = { "aws:SourceArn" = aws_sns_topic.feedback.arn } }
    }]
  })
}

# --- 5. IAM: the receiver may take messages off this one queue, and nothing else --------------------------------------
# The webhook needs no permission at all. GetQueueAttributes tells how many messages wait, for GET /metrics. DeleteMessage
# covers deleting in batches as well:
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-api-permissions-reference.html

resource "aws_iam_policy" "receiver" {
  name        = "${var.name}-receiver"
  description = "Take messages off the ${var.name} queue"

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [merge(
      {
        Sid      = "DrainQueue"
        Effect   = "Allow"
        Action   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]
        Resource = aws_sqs_queue.feedback.arn
      },
      length(var.receiver_cidrs) == 0 ? {} : { Condition = { IpAddress = { "aws:SourceIp" = var.receiver_cidrs } } },
    )]
  })
}

# A receiver outside AWS: a user of its own, who cannot log in and has this one policy.
resource "aws_iam_user" "receiver" {
  count = local.access_key ? 1 : 0
  name  = "${var.name}-receiver"
}

resource "aws_iam_user_policy_attachment" "receiver" {
  count      = local.access_key ? 1 : 0
  user       = aws_iam_user.receiver[0].name
  policy_arn = aws_iam_policy.receiver.arn
}

resource "aws_iam_access_key" "receiver" {
  count   = local.access_key ? 1 : 0
  user    = aws_iam_user.receiver[0].name
  pgp_key = var.pgp_key
}

# A receiver on EC2: the machine's role, whose credentials AWS hands out and renews by itself.
resource "aws_iam_role_policy_attachment" "receiver" {
  count      = var.instance_role_name == null ? 0 : 1
  role       = var.instance_role_name
  policy_arn = aws_iam_policy.receiver.arn
}

# --- 6. alarms, when alarm_actions says whom to tell ------------------------------------------------------------------
# The receiver empties the queue as it runs, so the age of the oldest message tells of one that does not; their number does not.
# Of what a receiver leaves there (a topic that it does not know) it tells itself: SQS's age leaves out what came three times.
# Rates are of the whole account; no news is no change, hence "ignore", as AWS advises:
# https://docs.aws.amazon.com/ses/latest/dg/reputationdashboard-cloudwatch-alarm.html

locals {
  alarms = length(var.alarm_actions) == 0 ? {} : merge(
    {
      queue-not-drained = {
        description = "A feedback message has waited in the queue for over 15 minutes: the receiver is not polling."
        namespace   = "AWS/SQS", metric = "ApproximateAgeOfOldestMessage", statistic = "Maximum", period = 300
        threshold   = 900, missing = "notBreaching", dimensions = { QueueName = aws_sqs_queue.feedback.name }
      }
      bounce-rate = {
        description = "The account's bounce rate has reached 5 %; SES may review it now, and pause sending at 10 %."
        namespace   = "AWS/SES", metric = "Reputation.BounceRate", statistic = "Average", period = 3600
        threshold   = 0.05, missing = "ignore", dimensions = {}
      }
      complaint-rate = {
        description = "The account's complaint rate has reached 0.1 %; SES may review it now, and pause sending at 0.5 %."
        namespace   = "AWS/SES", metric = "Reputation.ComplaintRate", statistic = "Average", period = 3600
        threshold   = 0.001, missing = "ignore", dimensions = {}
      }
    },
    !local.webhook ? {} : {
      webhook-down = {
        description = "SNS gave up on the webhook and put feedback into the queue."
        namespace   = "AWS/SNS", metric = "NumberOfNotificationsRedrivenToDlq", statistic = "Sum", period = 300
        threshold   = 1, missing = "notBreaching", dimensions = { TopicName = aws_sns_topic.feedback.name }
      }
      feedback-lost = {
        description = "SNS reached neither the webhook nor the queue: feedback is lost."
        namespace   = "AWS/SNS", metric = "NumberOfNotificationsFailedToRedriveToDlq", statistic = "Sum", period = 300
        threshold   = 1, missing = "notBreaching", dimensions = { TopicName = aws_sns_topic.feedback.name }
      }
    },
  )
}

resource "aws_cloudwatch_metric_alarm" "feedback" {
  for_each = local.alarms # one alarm for each entry above

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  period              = each.value.period
  evaluation_periods  = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = each.value.threshold
  treat_missing_data  = each.value.missing
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions

  lifecycle {
    precondition {
      condition     = !contains(var.alarm_actions, aws_sns_topic.feedback.arn)
      error_message = "alarm_actions: the feedback topic is for SES alone; alarms need another topic."
    }
  }
}

# --- 7. what the receiver needs to know -------------------------------------------------------------------------------

# A check only warns. These two mistakes look like success everywhere else.
check "webhook_confirmed" {
  assert {
    condition     = alltrue([for s in aws_sns_topic_subscription.webhook : !s.pending_confirmation])
    error_message = "The webhook has not confirmed its subscription and gets nothing. Start the receiver, then: terraform apply -replace='aws_sns_topic_subscription.webhook[0]'"
  }
}

check "webhook_path" {
  assert {
    condition     = var.webhook_url == null ? true : can(regex("/sns$", var.webhook_url))
    error_message = "webhook_url does not end in /sns, the path the receiver listens on. Right only if your proxy rewrites it."
  }
}

output "settings" {
  description = "The receiver's settings as environment variables: terraform output -raw settings > receiver.env"
  value = join("", concat(
    [
      "Sns__TopicArns__0=${aws_sns_topic.feedback.arn}\n",
      "Sns__MinimumSignatureVersion=${aws_sns_topic.feedback.signature_version}\n",
      "Sqs__QueueUrl=${aws_sqs_queue.feedback.url}\n",
    ],
    [for key in aws_iam_access_key.receiver : "AWS_ACCESS_KEY_ID=${key.id}\n"],
  ))
}

output "secret_settings" {
  description = "The secret that belongs to them: terraform output -raw secret_settings >> receiver.env. Empty with pgp_key or without an access key."
  value       = join("", [for key in aws_iam_access_key.receiver : "AWS_SECRET_ACCESS_KEY=${key.secret}\n" if var.pgp_key == null])
  sensitive   = true # terraform apply then prints <sensitive> in its place
}

# These two are told by the policies, not by the topic and the queue: the same values, once SES and SNS are let in.
output "topic_arn" {
  description = "Sns__TopicArns__0: the topic the receiver may believe."
  value       = aws_sns_topic_policy.feedback.arn
}

output "queue_url" {
  description = "Sqs__QueueUrl: the queue the receiver polls."
  value       = aws_sqs_queue_policy.feedback.queue_url
}

output "access_key_id" {
  description = "AWS_ACCESS_KEY_ID of the receiver; null when it has none."
  value       = one(aws_iam_access_key.receiver[*].id)
}

output "encrypted_secret_access_key" {
  description = "AWS_SECRET_ACCESS_KEY, with pgp_key: terraform output -raw encrypted_secret_access_key | base64 --decode | gpg --decrypt"
  value       = one(aws_iam_access_key.receiver[*].encrypted_secret)
}

output "configuration_set_name" {
  description = "Send mail with it (ConfigurationSetName, or the header X-SES-CONFIGURATION-SET), or make it the default of your domain."
  value       = aws_sesv2_configuration_set.feedback.configuration_set_name
}

output "webhook_url" {
  description = "Where SNS posts; null when the queue is subscribed instead."
  value       = one(aws_sns_topic_subscription.webhook[*].endpoint)
}

output "receiver_policy_arn" {
  description = "The receiver's permissions, for any other identity it may run as."
  value       = aws_iam_policy.receiver.arn
}
