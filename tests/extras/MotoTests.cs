using System.Net;
using System.Text.Json;
using System.Text.RegularExpressions;

/// <summary>From a topic to the receiver, with an SNS, an SQS and an IAM that others wrote. One at a time: there is one topic.</summary>
[Collection("Alone")]
public sealed partial class MotoTests(Moto moto) : IClassFixture<Moto>, IAsyncDisposable {
    const int Many = 1000, Some = 400;
    readonly string _folder = Directory.CreateTempSubdirectory("receiver-").FullName;

    string CertificateFolder => Directory.CreateDirectory(Path.Combine(_folder, "certificates")).FullName;

    public async ValueTask DisposeAsync() {
        if (Moto.IsThere) await moto.EnforceAsync(false);
    }

    static void NeedsMoto() => Assert.SkipUnless(Moto.IsThere, "moto_server is not on PATH: pip install 'moto[server]'");

    // A queue with what the topic sent to it, and the certificates of these messages in the receiver's folder. A hundred at a time, out of
    // the queue and in again: for each request moto looks at all that lie there. What is received stays hidden for longer than moto takes
    // with four requests at once: what comes a second time has a new handle, and with the old one it is not deleted. But not for as long as
    // EmptyAsync has patience: moto loses a deletion now and then.
    async Task<string> PublishAsync(int count, bool raw = false) {
        string queue = await moto.CreateQueueAsync(visibilityTimeout: "30");
        await moto.SubscribeAsync("sqs", "arn:aws:sqs:us-east-1:123456789012:" + queue.Split('/')[^1], raw);
        var bodies = new List<string>();
        foreach (int[] hundred in Enumerable.Range(0, count).Chunk(100)) {
            foreach (int i in hundred) await moto.PublishAsync(FakeSns.SesBounce([$"user{i}@example.com"], $"mail-{i}"));
            bodies.AddRange(await moto.TakeAsync(queue));
        }
        await moto.DeleteTopicAsync();
        if (!raw) await WriteCertificatesAsync(bodies);
        await moto.SendAsync(queue, bodies);
        return queue;
    }

    // Each message has another.
    async Task WriteCertificatesAsync(IEnumerable<string> bodies) {
        foreach (string body in bodies) {
            string name = JsonElement.Parse(body).GetProperty("SigningCertURL").GetString()!.Split('/')[^1];
            await File.WriteAllTextAsync(Path.Combine(CertificateFolder, name), await moto.CertificateAsync(name), TestContext.Current.CancellationToken);
        }
    }

    // Asked seldom: moto does one thing at a time, and this is the slowest.
    Task EmptyAsync(string queue) => Eventually.TrueAsync(async () => await moto.CountAsync(queue) == 0, seconds: 180, pause: 1000);

    Task<OwnProcess> StartAsync(string queue, params string[] environment) =>
        OwnProcess.StartAsync(_folder, ["Sqs__QueueUrl=" + queue, "Sqs__ServiceUrl=" + moto.Url, .. environment]);

    static async Task AssertOnceInHistoryAsync(HttpClient receiver, int count) {
        for (int i = 0; i < count; i++) {
            var history = JsonElement.Parse(await receiver.GetStringAsync($"/history/user{i}@example.com", TestContext.Current.CancellationToken));
            Assert.Single(history.GetProperty("events").EnumerateArray());
        }
    }

    [Fact]
    public async Task A_thousand_messages_of_a_topic_come_through_the_queue_once_each() {
        NeedsMoto();
        string queue = await PublishAsync(Many);

        await using var app = await ReceiverApp.StartAsync(["Sqs:QueueUrl=" + queue, "Sqs:ServiceUrl=" + moto.Url], _folder);

        await EmptyAsync(queue);
        await AssertOnceInHistoryAsync(app.Private, Many);
        Assert.Empty(app.Sns.Requests); // the certificates lay there
        Assert.False(app.Log.Text.Contains("Warning", StringComparison.Ordinal), app.Log.Text);
    }

    [Fact]
    public async Task Kill_9_while_the_queue_is_drained_loses_nothing_and_doubles_nothing() {
        NeedsMoto();
        string queue = await moto.CreateQueueAsync();
        var sns = new FakeSns();
        sns.WriteCertificate(_folder);
        await moto.SendAsync(queue, Enumerable.Range(0, Some).Select(i => sns.Bounce($"user{i}@example.com", $"mail-{i}")));

        using (var receiver = await StartAsync(queue)) {
            await Eventually.TrueAsync(async () => await moto.CountAsync(queue) < Some * 3 / 4, seconds: 180, pause: 100);
            await receiver.KillAsync();
        }
        Assert.InRange(await moto.CountAsync(queue), 1, Some);
        using var again = await StartAsync(queue);

        await EmptyAsync(queue);
        await AssertOnceInHistoryAsync(again.Private, Some);
    }

    [Fact]
    public async Task Raw_delivery_of_a_topic_is_believed_when_that_is_set() {
        NeedsMoto();
        string queue = await PublishAsync(3, raw: true);

        await using var app = await ReceiverApp.StartAsync(["Sqs:QueueUrl=" + queue, "Sqs:ServiceUrl=" + moto.Url, "Sqs:AcceptRaw=true"], _folder);

        await EmptyAsync(queue);
        await AssertOnceInHistoryAsync(app.Private, 3);
    }

    [Fact]
    public async Task What_an_SNS_that_others_wrote_posts_to_the_webhook_is_kept() {
        NeedsMoto();
        await using var app = await ReceiverApp.StartAsync(folder: _folder);
        // The certificate's URL is AWS's, and in AWS's place moto answers.
        app.Sns.Answer = async (request, _) => new HttpResponseMessage(HttpStatusCode.OK) {
            Content = new StringContent(await moto.CertificateAsync(request.RequestUri!.AbsolutePath[1..])),
        };
        await moto.SubscribeAsync("http", new Uri(app.Webhook.BaseAddress!, "/sns").AbsoluteUri);

        await moto.PublishAsync(FakeSns.SesBounce(["jane@example.com"]));
        await moto.DeleteTopicAsync();

        Assert.Equal(200, await app.StatusAsync("/suppressed/jane@example.com"));
        Assert.StartsWith("https://sns.us-east-1.amazonaws.com/SimpleNotificationService-", Assert.Single(app.Sns.Requests), StringComparison.Ordinal);
    }

    // A user who may do on one queue what infra.tf lets the receiver do.
    async Task<(string Id, string Secret)> CreateReceiverAsync(string queue) {
        string infra = await File.ReadAllTextAsync(Path.Combine(DocumentationTests.Root, "infra.tf"), TestContext.Current.CancellationToken);
        // To AWS the permission to delete covers deleting in batches, and there is no other name for that; moto wants one.
        string actions = ReceiverActions().Match(infra).Groups[1].Value
            .Replace("\"sqs:DeleteMessage\"", "\"sqs:DeleteMessage\", \"sqs:DeleteMessageBatch\"", StringComparison.Ordinal);
        return await moto.CreateUserAsync($$"""
            {"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":[{{actions}}],"Resource":"arn:aws:sqs:us-east-1:123456789012:{{queue.Split('/')[^1]}}"}]}
            """);
    }

    // Where the SDK looks when the environment has no key.
    string WriteKey(string id, string secret) {
        string path = Path.Combine(_folder, "credentials");
        File.WriteAllText(path, $"[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
        return path;
    }

    [Fact]
    public async Task What_infra_tf_permits_is_enough() {
        NeedsMoto();
        string queue = await PublishAsync(10);
        var (id, secret) = await CreateReceiverAsync(queue);
        await moto.EnforceAsync(true);

        using var receiver = await StartAsync(queue, "AWS_ACCESS_KEY_ID=" + id, "AWS_SECRET_ACCESS_KEY=" + secret);

        await Eventually.TrueAsync(async () =>
            (await receiver.Private.GetAsync("/suppressed/user9@example.com", TestContext.Current.CancellationToken)).IsSuccessStatusCode);
        await receiver.StopAsync();
        await moto.EnforceAsync(false);
        Assert.Equal(0, await moto.CountAsync(queue));
        Assert.DoesNotContain("warn", receiver.Output, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("wrong-secret", "SignatureDoesNotMatch")]
    [InlineData(null, "InvalidClientTokenId")]
    public async Task A_wrong_key_is_told_and_a_right_one_is_found_without_a_restart(string? secretOfUser, string code) {
        NeedsMoto();
        string queue = await PublishAsync(1);
        var (id, secret) = await CreateReceiverAsync(queue);
        string path = WriteKey(secretOfUser is null ? "AKIANOBODYKNOWSTHIS0" : id, secretOfUser ?? secret);
        await moto.EnforceAsync(true);

        using var receiver = await StartAsync(queue, "AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "AWS_SHARED_CREDENTIALS_FILE=" + path);

        await Eventually.TrueAsync(() => receiver.Output.Contains("The queue is asked again in 2 s: " + code, StringComparison.Ordinal));
        Assert.DoesNotContain(id, receiver.Output, StringComparison.Ordinal);
        WriteKey(id, secret);
        await Eventually.TrueAsync(async () =>
            (await receiver.Private.GetAsync("/suppressed/user0@example.com", TestContext.Current.CancellationToken)).IsSuccessStatusCode);
        await receiver.StopAsync();
        await moto.EnforceAsync(false);
        Assert.True(await moto.CountAsync(queue) == 0, receiver.Output);
    }

    [GeneratedRegex("""Sid\s*=\s*"DrainQueue"\s*Effect\s*=\s*"Allow"\s*Action\s*=\s*\[([^\]]+)\]""")] private static partial Regex ReceiverActions();
}
