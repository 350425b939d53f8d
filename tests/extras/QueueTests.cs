using System.Net;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json.Nodes;
using LiteDB;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;

/// <summary>Sqs:QueueUrl. What comes by the queue is judged as what is posted, and leaves the queue once that is settled.</summary>
public class QueueTests(Moto moto) : IClassFixture<Moto> {
    static void NeedsMoto() => Assert.SkipUnless(Moto.IsThere, "moto_server is not on PATH: pip install 'moto[server]'");

    Task<ReceiverApp> StartAsync(string queue, FakeSns sns, Disk? disk = null) =>
        ReceiverApp.StartAsync(["Sqs:QueueUrl=" + queue, "Sqs:ServiceUrl=" + moto.Url], sns: sns, disk: disk);

    Task<ReceiverApp> StartRawAsync(string queue, string? folder = null) =>
        ReceiverApp.StartAsync(["Sqs:QueueUrl=" + queue, "Sqs:ServiceUrl=" + moto.Url, "Sqs:AcceptRaw=true"], folder);

    static async Task<BsonDocument[]> UnreadAfterStopAsync(ReceiverApp app) {
        await app.StopAsync();
        using var database = new LiteDatabase($"Filename={app.FeedbackDb};Collation=/Ordinal");
        return [.. database.GetCollection("unread").FindAll().OrderBy(each => each["message"].AsString.Length)];
    }

    [Fact]
    public async Task What_lies_in_the_queue_is_kept_and_the_queue_is_empty_afterwards() {
        NeedsMoto();
        string queue = await moto.CreateQueueAsync(visibilityTimeout: "10");
        var sns = new FakeSns();
        await moto.SendAsync(queue, Enumerable.Range(0, 45).Select(i => sns.Bounce($"user{i}@example.com", $"mail-{i}")));

        await using var app = await StartAsync(queue, sns);

        await Eventually.TrueAsync(async () => await moto.CountAsync(queue) == 0);
        for (int i = 0; i < 45; i++) Assert.Equal(200, await app.StatusAsync($"/suppressed/user{i}@example.com"));
        Assert.DoesNotContain("Warning", app.Log.Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_comes_by_the_queue_and_by_the_webhook_stands_once_in_the_history() {
        NeedsMoto();
        string queue = await moto.CreateQueueAsync();
        var sns = new FakeSns();
#pragma warning disable CA5351 // SQS sends it, and the SDK looks at it
        string bounce = sns.Bounce("twice@example.com");
        await using var app = await StartAsync(queue, sns);
        Assert.Equal(200, (await app.PostAsync(bounce)).Status);

        await moto.SendAsync(queue, bounce);

        await Eventually.TrueAsync(async () => await moto.CountAsync(queue) == 0);
        Assert.Single(await app.HistoryAsync("twice@example.com"));
    }

    [Fact]
    public async Task A_message_of_a_topic_that_no_setting_names_is_refused_and_stays() {
        NeedsMoto();
        string queue = await moto.CreateQueueAsync();
        var sns = new FakeSns();
        var foreign = sns.Notification(FakeSns.SesBounce(["jane@example.com"]));
        foreign["TopicArn"] = FakeSns.TopicArn + "-forgotten";
        await moto.SendAsync(queue, sns.Sign(foreign));

        await using var app = await StartAsync(queue, sns);

        await Eventually.TrueAsync(() => Task.FromResult(app.Log.Text.Contains("is refused with 403, TopicArn", StringComparison.Ordinal)));
        Assert.Equal(1, await moto.CountAsync(queue));
        Assert.Empty(await UnreadAfterStopAsync(app));
    }

    [Fact]
    public async Task A_forged_body_is_not_believed_and_does_not_stay() {
        NeedsMoto();
        string queue = await moto.CreateQueueAsync();
        var sns = new FakeSns();
        var forged = JsonNode.Parse(sns.Bounce("genuine@example.com"))!;
        forged["Message"] = FakeSns.SesBounce(["victim@example.com"]);
        await moto.SendAsync(queue, forged.ToJsonString());
        await moto.SendAsync(queue, sns.Bounce("other@example.com").Replace("\"Notification\"", "\"Other\"", StringComparison.Ordinal));
        await moto.SendAsync(queue, "no JSON");
        await moto.SendAsync(queue, sns.Bounce("after@example.com"));

        await using var app = await StartAsync(queue, sns);

        await Eventually.TrueAsync(async () => await moto.CountAsync(queue) == 0);
        Assert.Equal(404, await app.StatusAsync("/suppressed/victim@example.com"));
        Assert.Equal(200, await app.StatusAsync("/suppressed/after@example.com"));
        Assert.Contains("is refused with 403, the signature does not fit", app.Log.Text, StringComparison.Ordinal);
        Assert.Contains("is refused with 400, no SNS envelope", app.Log.Text, StringComparison.Ordinal);
        Assert.Contains(": 3 so far", app.Log.Text, StringComparison.Ordinal);
        Assert.DoesNotContain("@example.com", app.Log.Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_is_refused_is_unread_before_it_is_deleted() {
        NeedsMoto();
        string queue = await moto.CreateQueueAsync();
        var sns = new FakeSns();
        var envelope = JsonNode.Parse(new FakeSns(keySize: 2048).Bounce("victim@example.com"))!;
        envelope["SigningCertURL"] = sns.CertUrl; // of another key than it was signed with
        string forged = envelope.ToJsonString();
        foreach (string body in (string[])["no JSON", forged]) await moto.SendAsync(queue, body);

        await using var app = await StartAsync(queue, sns);

        await Eventually.TrueAsync(async () => await moto.CountAsync(queue) == 0);
        var unread = await UnreadAfterStopAsync(app);
        Assert.Equal(["no JSON", forged], unread.Select(each => each["message"].AsString));
        Assert.Equal([Verdict.Malformed.Why, Verdict.BadSignature.Why], unread.Select(each => each["why"].AsString));
    }

    [Fact]
    public async Task Of_a_long_refused_body_the_first_16384_characters_are_set_down() {
        NeedsMoto();
        string queue = await moto.CreateQueueAsync();
        await moto.SendAsync(queue, new string('a', 16_384));
        await moto.SendAsync(queue, new string('b', 16_385));
        await moto.SendAsync(queue, new string('c', 16_383) + "\U0001f4e7"); // its second half is too much

        await using var app = await StartAsync(queue, new FakeSns());

        await Eventually.TrueAsync(async () => await moto.CountAsync(queue) == 0);
        Assert.Equal([new string('a', 16_384), new string('b', 16_384), new string('c', 16_383)],
            (await UnreadAfterStopAsync(app)).Select(each => each["message"].AsString).Order());
    }

    [Fact]
    public async Task What_is_refused_stays_in_the_queue_while_it_cannot_be_set_down() {
        NeedsMoto();
        string queue = await moto.CreateQueueAsync();
        var disk = new WatchedDisk { OnWrite = WatchedDisk.WriteHalfAndFail };
        await moto.SendAsync(queue, "no JSON");

        await using var app = await StartAsync(queue, new FakeSns(), disk);

        await Eventually.TrueAsync(() => app.Log.Text.Contains("such messages stay in the queue", StringComparison.Ordinal));
        Assert.Equal(1, await moto.CountAsync(queue));
        disk.OnWrite = RandomAccess.Write;
        await Eventually.TrueAsync(async () => {
            app.Clock.Advance(TimeSpan.FromSeconds(61));
            return await moto.CountAsync(queue) == 0;
        });
        Assert.Single(await UnreadAfterStopAsync(app));
    }

    [Fact]
    public async Task Raw_messages_stay_in_the_queue_until_they_are_to_be_believed() {
        NeedsMoto();
        string queue = await moto.CreateQueueAsync();
        await moto.SendAsync(queue, FakeSns.SesBounce(["raw@example.com"]));
        await using var app = await StartAsync(queue, new FakeSns());
        var find = app.Services.GetServices<Func<Finding?>>().ToArray();

        await Eventually.TrueAsync(() => {
            app.Clock.Advance(TimeSpan.FromSeconds(2));
            return find.Any(each => each()?.Mend == "see Sqs:AcceptRaw");
        });
        Assert.Equal(1, await moto.CountAsync(queue));
        Assert.Empty(await UnreadAfterStopAsync(app));

        await using var believing = await StartRawAsync(queue, app.Folder);
        await Eventually.TrueAsync(async () => await moto.CountAsync(queue) == 0);
        Assert.Equal(200, await believing.StatusAsync("/suppressed/raw@example.com"));
    }

    [Fact]
    public async Task Where_raw_messages_are_believed_a_topic_is_not_silent_and_not_unconfirmed() {
        NeedsMoto();
        string queue = await moto.CreateQueueAsync();
        await moto.SendAsync(queue, FakeSns.SesBounce(["raw@example.com"]));
        await using var app = await StartRawAsync(queue);
        await Eventually.TrueAsync(async () => await moto.CountAsync(queue) == 0);
        string[] Codes() => [.. app.GetAsync("/status").Result.Json.GetProperty("findings").EnumerateArray().Select(each => each.GetProperty("code").GetString()!)];

        await Eventually.TrueAsync(() => !Codes().Contains("topic-unconfirmed"));
        app.Clock.Advance(TimeSpan.FromDays(8));
        Assert.Contains("topic-silent", Codes());
    }

    [Fact]
    public async Task Raw_messages_are_believed_when_that_is_set_and_outlive_a_rebuild() {
        NeedsMoto();
        string queue = await moto.CreateQueueAsync();
        await moto.SendAsync(queue, FakeSns.SesBounce(["raw@example.com"]));
        await using (var app = await StartRawAsync(queue)) {
            await Eventually.TrueAsync(async () => await moto.CountAsync(queue) == 0);
            Assert.Equal(200, await app.StatusAsync("/suppressed/raw@example.com"));
            Assert.DoesNotContain("Warning", app.Log.Text, StringComparison.Ordinal);
            await app.StopAsync();
            File.Delete(app.FeedbackDb);

            await using var again = await ReceiverApp.StartAsync(folder: app.Folder);
            Assert.Equal(200, await again.StatusAsync("/suppressed/raw@example.com"));
            Assert.Equal("2026-11-24T07:00:00Z", Assert.Single(await again.HistoryAsync("raw@example.com")).GetProperty("at").GetString());
            Assert.Empty(await UnreadAfterStopAsync(again));
        }
    }

    [Fact]
    public async Task A_raw_message_that_comes_again_counts_once_an_open_too() {
        NeedsMoto();
        string queue = await moto.CreateQueueAsync();
        string bounce = FakeSns.SesBounce(["raw@example.com"]);
        string open = bounce.Replace("\"Bounce\"", "\"Open\"", StringComparison.Ordinal);
        foreach (string body in (string[])[bounce, open, bounce, open, open.Replace("Your offers", "Your bill", StringComparison.Ordinal)])
            await moto.SendAsync(queue, body);

        await using var app = await StartRawAsync(queue);

        await Eventually.TrueAsync(async () => await moto.CountAsync(queue) == 0);
        Assert.Equal(["Bounce", "Open", "Open"], (await app.HistoryAsync("raw@example.com")).Select(each => each.GetProperty("kind").GetString()).Order());
    }

    [Fact]
    public async Task Raw_is_what_SES_says_and_nothing_else() {
        NeedsMoto();
        string queue = await moto.CreateQueueAsync();
        string[] said = ["Successfully validated SNS topic for Amazon SES event publishing.", """{"notificationType":"AmazonSnsSubscriptionSucceeded"}""",
            """{"eventType":"Tomorrow","mail":{}}"""];
        string[] refused = ["no JSON", "[]", """{"eventType":"\ud83d"}""", """{"AlarmName":"the processor is hot"}"""];
        foreach (string body in (string[])[.. said, .. refused]) await moto.SendAsync(queue, body);

        await using var app = await StartRawAsync(queue);

        await Eventually.TrueAsync(async () => await moto.CountAsync(queue) == 0);
        Assert.Equal([.. refused.Append(said[2]).Order()], (await UnreadAfterStopAsync(app)).Select(each => each["message"].AsString).Order());
    }

    [Fact]
    public async Task A_forged_envelope_is_refused_where_raw_messages_are_believed() {
        NeedsMoto();
        string queue = await moto.CreateQueueAsync();
        var forged = JsonNode.Parse(new FakeSns(keySize: 2048).Bounce("victim@example.com"))!;
        await using var app = await StartRawAsync(queue);
        forged["SigningCertURL"] = app.Sns.CertUrl;
        forged["eventType"] = "Bounce";

        await moto.SendAsync(queue, forged.ToJsonString());

        await Eventually.TrueAsync(async () => await moto.CountAsync(queue) == 0);
        Assert.Equal(404, await app.StatusAsync("/suppressed/victim@example.com"));
        Assert.Contains("is refused with 403, the signature does not fit", app.Log.Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_message_whose_certificate_cannot_be_had_now_stays_in_the_queue_until_it_can() {
        NeedsMoto();
        string queue = await moto.CreateQueueAsync();
        var sns = new FakeSns();
        sns.Answer = (_, _) => Task.FromResult(new HttpResponseMessage(HttpStatusCode.ServiceUnavailable));
        await moto.SendAsync(queue, sns.Bounce("later@example.com"));

        await using var app = await StartAsync(queue, sns);

        await Eventually.TrueAsync(() => app.Log.Text.Contains("the signing certificate cannot be had now", StringComparison.Ordinal));
        Assert.Equal(1, await moto.CountAsync(queue));
        Assert.Equal(404, await app.StatusAsync("/suppressed/later@example.com"));

        sns.Answer = sns.DefaultAnswerAsync;
        await Eventually.TrueAsync(async () => {
            app.Clock.Advance(TimeSpan.FromSeconds(61)); // a failed download is remembered for a minute
            return await moto.CountAsync(queue) == 0;
        });
        Assert.Equal(200, await app.StatusAsync("/suppressed/later@example.com"));
        Assert.Empty(await UnreadAfterStopAsync(app));
    }

    [Fact]
    public async Task A_message_that_waits_for_its_certificate_keeps_no_other_waiting_and_after_ten_minutes_that_is_found() {
        NeedsMoto();
        string queue = await moto.CreateQueueAsync(visibilityTimeout: "1");
        FakeSns sns = new(), other = new();
        sns.Answer = (_, _) => Task.FromResult(new HttpResponseMessage(HttpStatusCode.ServiceUnavailable));
        await moto.SendAsync(queue, other.Bounce("later@example.com"));
        await moto.SendAsync(queue, Enumerable.Range(0, 30).Select(i => sns.Bounce($"user{i}@example.com", $"mail-{i}")));
        string folder = Directory.CreateTempSubdirectory("receiver-").FullName;
        sns.WriteCertificate(folder);
        await using var app = await ReceiverApp.StartAsync(["Sqs:QueueUrl=" + queue, "Sqs:ServiceUrl=" + moto.Url], folder, sns);
        var find = app.Services.GetServices<Func<Finding?>>().ToArray();
        Finding? Left() => find.Select(each => each()).FirstOrDefault(finding => finding?.Code == "queue-left");

        await Eventually.TrueAsync(async () => await moto.CountAsync(queue) == 1); // the clock stands still, so nobody has waited
        Assert.Null(Left());
        await Eventually.TrueAsync(() => {
            app.Clock.Advance(TimeSpan.FromSeconds(2));
            return Left() is not null;
        });
        Assert.StartsWith("Messages are left in the queue since 2026-11-24 08:00 UTC, and lost when its retention ends: the signing certificate", Left()!.Says,
            StringComparison.Ordinal);

        other.WriteCertificate(folder);
        await Eventually.TrueAsync(async () => {
            app.Clock.Advance(TimeSpan.FromSeconds(2));
            return await moto.CountAsync(queue) == 0;
        });
        app.Clock.Advance(TimeSpan.FromMinutes(11));
        Assert.Null(Left());
    }

    [Fact]
    public async Task What_is_refused_in_the_queue_is_logged_once_in_ten_seconds() {
        NeedsMoto();
        string queue = await moto.CreateQueueAsync();
        await using var app = await StartAsync(queue, new FakeSns());
        int refused = 0;
        app.Services.GetRequiredService<Intake>().Answered += (_, _) => Interlocked.Increment(ref refused);
        await moto.SendAsync(queue, Enumerable.Range(0, 5).Select(i => $"no JSON {i}"));

        await Eventually.TrueAsync(async () => await moto.CountAsync(queue) == 0);

        Assert.Equal(5, refused);
        Assert.Single(System.Text.RegularExpressions.Regex.Matches(app.Log.Text, "SQS message"));
    }

    [Fact]
    public async Task Of_what_SQS_says_of_a_wrong_signature_only_the_first_line_is_logged_since_the_request_follows() {
        await using var queue = await Endpoint.StartAsync();
        queue.Answer = context => {
            context.Response.StatusCode = 403;
            return context.Response.WriteAsync("""
                {"__type":"InvalidSignatureException","message":"The signature does not match.\n\nThe Canonical String was x-amz-security-token:secret-token"}
                """);
        };
        await using var app = await ReceiverApp.StartAsync(["Sqs:QueueUrl=" + queue.Url + "/123456789012/feedback", "Sqs:ServiceUrl=" + queue.Url]);

        await Eventually.TrueAsync(() => app.Log.Text.Contains("The signature does not match.", StringComparison.Ordinal));
        Assert.DoesNotContain("secret-token", app.Log.Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_message_that_SQS_fails_to_delete_is_said_so_of_and_counts_once_when_it_comes_again() {
        var sns = new FakeSns();
        string bounce = sns.Bounce("jane@example.com"), received = new JsonObject {
            ["Messages"] = new JsonArray(new JsonObject {
                ["MessageId"] = "sqs-1", ["ReceiptHandle"] = "handle-1", ["Body"] = bounce,
                ["MD5OfBody"] = Convert.ToHexStringLower(MD5.HashData(Encoding.UTF8.GetBytes(bounce))),
            }),
        }.ToJsonString();
#pragma warning restore CA5351
        await using var queue = await Endpoint.StartAsync();
        int deletes = 0;
        bool mended = false;
        queue.Answer = context => (context.Request.Headers["X-Amz-Target"].ToString(), deletes) switch {
            ("AmazonSQS.ReceiveMessage", 0) => context.Response.WriteAsync(received),
            ("AmazonSQS.DeleteMessageBatch", _) => context.Response.WriteAsync(!mended || deletes++ < 0
                ? """{"Successful":[],"Failed":[{"Id":"0","Code":"InternalError","SenderFault":false}]}""" : """{"Successful":[{"Id":"0"}],"Failed":[]}"""),
            _ => Task.Delay(Timeout.Infinite, context.RequestAborted),
        };
        await using var app = await ReceiverApp.StartAsync(["Sqs:QueueUrl=" + queue.Url + "/123456789012/feedback", "Sqs:ServiceUrl=" + queue.Url], sns: sns);

        await Eventually.TrueAsync(() => app.Log.Text.Contains("InternalError: a message cannot be deleted", StringComparison.Ordinal));
        var find = app.Services.GetServices<Func<Finding?>>().ToArray();
        Assert.All(find, each => Assert.Null(each()));
        app.Clock.Advance(TimeSpan.FromMinutes(10)); // once is no finding, however long ago
        Assert.All(find, each => Assert.Null(each()));
        var finding = await FoundAsync(app, "a message cannot be deleted", seconds: 61);
        Assert.StartsWith("The queue cannot be emptied since 2026-11-24 08:", finding.Says, StringComparison.Ordinal);
        mended = true;
        await Eventually.TrueAsync(() => {
            app.Clock.Advance(TimeSpan.FromSeconds(1));
            return deletes == 1;
        });
        Assert.Single(await app.HistoryAsync("jane@example.com"));
        await Eventually.TrueAsync(() => find.All(each => each() is null));
    }

    [Fact]
    public async Task A_receiver_that_stops_finishes_what_it_holds() {
        NeedsMoto();
        string queue = await moto.CreateQueueAsync();
        var sns = new FakeSns();
        var (asked, answer) = (new TaskCompletionSource(), new TaskCompletionSource());
        sns.Answer = async (request, cancellation) => {
            asked.TrySetResult();
            await answer.Task;
            return await sns.DefaultAnswerAsync(request, cancellation);
        };
        await moto.SendAsync(queue, sns.Bounce("held@example.com"));
        var app = await StartAsync(queue, sns);
        await asked.Task.WaitAsync(TimeSpan.FromSeconds(30), TestContext.Current.CancellationToken);

        var stopped = app.StopAsync();
        answer.SetResult();
        await stopped;
        await app.DisposeAsync();

        Assert.Equal(0, await moto.CountAsync(queue));
        await using var again = await ReceiverApp.StartAsync(folder: app.Folder);
        Assert.Equal(200, await again.StatusAsync("/suppressed/held@example.com"));
    }

    /// <summary>The one finding that comes when a try fails, as the log says, each so many seconds after the one before.</summary>
    static async Task<Finding> FoundAsync(ReceiverApp app, string failed, int seconds) {
        var find = app.Services.GetServices<Func<Finding?>>().ToArray();
        Finding[] found = [];
        int tries = 0;
        await Eventually.TrueAsync(() => {
            int tried = System.Text.RegularExpressions.Regex.Count(app.Log.Text, failed);
            app.Clock.Advance(TimeSpan.FromSeconds(tried > tries ? seconds : 1));
            tries = tried;
            return (found = [.. find.Select(each => each()).OfType<Finding>()]).Length > 0;
        });
        return Assert.Single(found);
    }

    [Fact]
    public async Task A_receiver_starts_and_answers_when_the_queue_cannot_be_reached_and_keeps_trying() {
        string nobody = $"http://127.0.0.1:{Moto.FreePort()}";
        await using var app = await ReceiverApp.StartAsync(["Sqs:QueueUrl=" + nobody + "/123456789012/q", "Sqs:ServiceUrl=" + nobody]);

        Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce("jane@example.com"))).Status);
        Assert.Equal(200, await app.StatusAsync("/suppressed/jane@example.com"));
        await Eventually.TrueAsync(() => app.Log.Text.Contains("The queue is asked again in 1 s: ", StringComparison.Ordinal));
        await Eventually.TrueAsync(() => {
            app.Clock.Advance(TimeSpan.FromSeconds(1));
            return app.Log.Text.Contains("The queue is asked again in 4 s: ", StringComparison.Ordinal);
        });
        var find = app.Services.GetServices<Func<Finding?>>().ToArray();
        Assert.All(find, each => Assert.Null(each()));
        var finding = await FoundAsync(app, "The queue is asked again", seconds: 240);
        Assert.Equal(("queue-unreachable", "error"), (finding.Code, finding.Severity));
        Assert.StartsWith("The queue cannot be read since 2026-11-24 08:00 UTC: ", finding.Says, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_queue_that_is_not_there_is_named_in_the_log_and_asked_again() {
        NeedsMoto();
        await using var app = await StartAsync(moto.Url + "/123456789012/no-such-queue", new FakeSns());

        await Eventually.TrueAsync(() => app.Log.Text.Contains("The queue is asked again in 1 s: ", StringComparison.Ordinal));
        Assert.Contains("NonExistentQueue", app.Log.Text, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("https://sqs.eu-west-1.amazonaws.com/123456789012/email-feedback", "https://sqs.eu-west-1.amazonaws.com", "eu-west-1")]
    [InlineData("https://sqs.cn-north-1.amazonaws.com.cn/123456789012/q", "https://sqs.cn-north-1.amazonaws.com.cn", "cn-north-1")]
    [InlineData("https://sqs-fips.us-gov-west-1.amazonaws.com/123456789012/q", "https://sqs-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1")]
    [InlineData("https://sqs.us-iso-east-1.c2s.ic.gov/123456789012/q", "https://sqs.us-iso-east-1.c2s.ic.gov", "us-iso-east-1")]
    [InlineData("https://sqs.eu-isoe-west-1.cloud.adc-e.uk/123456789012/q", "https://sqs.eu-isoe-west-1.cloud.adc-e.uk", "eu-isoe-west-1")]
    [InlineData("https://vpce-1a-2b.sqs.us-east-2.vpce.amazonaws.com/123456789012/q", "https://vpce-1a-2b.sqs.us-east-2.vpce.amazonaws.com", "us-east-2")]
    public void The_endpoint_and_the_region_are_those_of_the_queue_url(string url, string endpoint, string region) =>
        Assert.Equal((endpoint, region), new QueueOptions { QueueUrl = url }.Where());

    [Theory]
    [InlineData("Sqs:QueueUrl", "Sqs:QueueUrl=email-feedback")]
    [InlineData("Sqs:QueueUrl", "Sqs:QueueUrl=arn:aws:sqs:eu-west-1:123456789012:email-feedback")]
    [InlineData("Sqs:QueueUrl", "Sqs:QueueUrl=http://sqs.eu-west-1.amazonaws.com/123456789012/email-feedback")]
    [InlineData("Sqs:QueueUrl", "Sqs:QueueUrl=https://sqs.eu-west-1.amazonaws.com/123456789012/email-feedback.fifo")]
    [InlineData("Sqs:ServiceUrl", "Sqs:QueueUrl=http://localhost:4566/000000000000/q", "Sqs:ServiceUrl=localhost")]
    [InlineData("Sqs:AcceptRaw", "Sqs:AcceptRaw=perhaps")]
    public async Task A_wrong_setting_stops_the_start_and_is_named(string name, params string[] settings) =>
        Assert.Contains(name, (await Assert.ThrowsAnyAsync<Exception>(() => ReceiverApp.StartAsync(settings))).Message, StringComparison.Ordinal);
}
