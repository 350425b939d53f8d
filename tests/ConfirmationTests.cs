using System.Net;
using System.Text;
using Microsoft.AspNetCore.WebUtilities;

/// <summary>Confirming a subscription is the one thing that a message makes the receiver do to the world.</summary>
public sealed class ConfirmationTests {
    const string Sns = "https://sns.us-east-1.amazonaws.com/";

    static string UrlOf(string host, string topicArn) =>
        $"{host}?Action=ConfirmSubscription&TopicArn={topicArn}&Token=secret-token";

    static IEnumerable<string> Confirmations(FakeSns sns) =>
        sns.Requests.Where(url => url.Contains("Action")).Select(Uri.UnescapeDataString);

    /// <summary>Serves the certificate as always, and lets SNS answer a confirmation as told.</summary>
    static void ConfirmWith(FakeSns sns, Func<CancellationToken, Task<HttpResponseMessage>> answer) =>
        sns.Answer = (request, cancellation) => request.RequestUri!.AbsolutePath == "/"
            ? answer(cancellation) : sns.DefaultAnswerAsync(request, cancellation);

    static void ConfirmWith(FakeSns sns, int status) => ConfirmWith(sns, _ => Task.FromResult(
        new HttpResponseMessage((HttpStatusCode)status) { Headers = { Location = new Uri("https://evil.example/") } }));

    [Theory]
    [InlineData("1")]
    [InlineData("2")]
    public async Task The_confirm_URL_is_built_from_TopicArn_and_Token_never_from_SubscribeURL(string version) {
        await using var app = await ReceiverApp.StartAsync();
        string body = app.Sns.Sign(app.Sns.Confirmation(version: version));
        Assert.Equal((200, "subscription confirmed"), await app.PostAsync(body));
        Assert.Equal([UrlOf(Sns, FakeSns.TopicArn)], Confirmations(app.Sns));
        Assert.DoesNotContain(app.Sns.Requests, url => url.Contains("evil.example"));
    }

    [Theory]
    [InlineData("arn:aws-cn:sns:cn-north-1:123456789012:t", "https://sns.cn-north-1.amazonaws.com.cn/")]
    [InlineData("arn:aws-eusc:sns:eusc-de-east-1:123456789012:t", "https://sns.eusc-de-east-1.amazonaws.eu/")]
    public async Task A_subscription_is_confirmed_at_the_topics_own_host(string topicArn, string host) {
        await using var app = await ReceiverApp.StartAsync(["Sns:TopicArns:0=" + topicArn]);
        var envelope = app.Sns.Confirmation();
        (envelope["TopicArn"], envelope["SigningCertURL"]) = (topicArn, host + app.Sns.Name);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Sign(envelope))).Status);
        Assert.Equal([UrlOf(host, topicArn)], Confirmations(app.Sns));
    }

    [Theory]
    [InlineData("a&Action=Unsubscribe&TopicArn=b")]
    [InlineData("a#b?c/../d")]
    [InlineData("a+b c%20d=%26")]
    [InlineData("\u00e9\ud83d\ude00")]
    [InlineData("")]
    public async Task A_Token_is_a_Token_whatever_it_holds(string token) {
        await using var app = await ReceiverApp.StartAsync();
        var envelope = app.Sns.Confirmation();
        envelope["Token"] = token;
        await app.PostAsync(app.Sns.Sign(envelope));
        var url = new Uri(Assert.Single(app.Sns.Requests, url => url.Contains("Action")));
        var query = QueryHelpers.ParseQuery(url.Query);
        Assert.Equal(("sns.us-east-1.amazonaws.com", "/", ""), (url.Host, url.AbsolutePath, url.Fragment));
        Assert.Equal([("Action", "ConfirmSubscription"), ("Token", token), ("TopicArn", FakeSns.TopicArn)],
            query.Select(pair => (pair.Key, pair.Value.ToString())).Order());
    }

    [Fact]
    public async Task SNS_has_its_answer_only_once_the_subscription_is_confirmed() {
        await using var app = await ReceiverApp.StartAsync();
        TaskCompletionSource asked = new();
        TaskCompletionSource<HttpResponseMessage> answer = new();
        ConfirmWith(app.Sns, _ => {
            asked.SetResult();
            return answer.Task;
        });
        var post = app.PostAsync(app.Sns.Sign(app.Sns.Confirmation()));
        await asked.Task.WaitAsync(TestContext.Current.CancellationToken);
        Assert.False(post.IsCompleted);
        answer.SetResult(new(HttpStatusCode.OK) { Content = new StringContent("<ConfirmSubscriptionResponse/>") });
        Assert.Equal((200, "subscription confirmed"), await post);
    }

    [Theory]
    [InlineData(400)]
    [InlineData(403)]
    [InlineData(404)]
    [InlineData(429)]
    [InlineData(500)]
    [InlineData(503)]
    [InlineData(302)]
    [InlineData(307)]
    [InlineData(202)]
    public async Task A_subscription_that_SNS_does_not_confirm_is_tried_again(int status) {
        await using var app = await ReceiverApp.StartAsync();
        ConfirmWith(app.Sns, status);
        string body = app.Sns.Sign(app.Sns.Confirmation());
        Assert.Equal((503, "the subscription could not be confirmed now"), await app.PostAsync(body));
        Assert.Single(Confirmations(app.Sns));
        ConfirmWith(app.Sns, 200);
        Assert.Equal(200, (await app.PostAsync(body)).Status);
        Assert.Equal(2, Confirmations(app.Sns).Count());
    }

    [Fact]
    public async Task An_SNS_that_cannot_be_reached_or_answers_without_end_is_tried_again() {
        await using var app = await ReceiverApp.StartAsync();
        string body = app.Sns.Sign(app.Sns.Confirmation());
        ConfirmWith(app.Sns, _ => throw new HttpRequestException("no such host"));
        Assert.Equal(503, (await app.PostAsync(body)).Status);
        var endless = new StringContent(new('x', 10 << 20));
        ConfirmWith(app.Sns, _ => Task.FromResult(new HttpResponseMessage { Content = endless }));
        Assert.Equal(503, (await app.PostAsync(body)).Status);
    }

    [Fact(Timeout = 30_000)]
    public async Task An_SNS_that_never_answers_is_given_ten_seconds() {
        await using var app = await ReceiverApp.StartAsync();
        var asked = new TaskCompletionSource();
        ConfirmWith(app.Sns, async cancellation => {
            asked.SetResult();
            await Task.Delay(Timeout.Infinite, cancellation);
            return new();
        });
        var post = app.PostAsync(app.Sns.Sign(app.Sns.Confirmation()));
        await asked.Task.WaitAsync(TestContext.Current.CancellationToken);
        app.Clock.Advance(TimeSpan.FromSeconds(9.9));
        Assert.False(post.IsCompleted);
        app.Clock.Advance(TimeSpan.FromSeconds(0.1));
        Assert.Equal(503, (await post).Status);
    }

    [Fact]
    public async Task A_confirmation_of_a_foreign_topic_fetches_nothing() {
        await using var app = await ReceiverApp.StartAsync();
        var envelope = app.Sns.Confirmation();
        envelope["TopicArn"] = FakeSns.TopicArn + "-of-a-stranger";
        Assert.Equal(403, (await app.PostAsync(app.Sns.Sign(envelope))).Status);
        Assert.Empty(app.Sns.Requests);
    }

    [Theory]
    [InlineData("Token", "their-token")]
    [InlineData("Signature", "AAAA")]
    [InlineData("SignatureVersion", "1")]
    public async Task A_confirmation_that_is_not_genuine_confirms_nothing(string field, string value) {
        await using var app = await ReceiverApp.StartAsync();
        var envelope = app.Sns.Confirmation();
        app.Sns.Sign(envelope);
        envelope[field] = value;
        Assert.Equal(403, (await app.PostAsync(envelope.ToJsonString())).Status);
        Assert.Empty(Confirmations(app.Sns));
    }

    [Fact]
    public async Task An_UnsubscribeConfirmation_is_kept_and_shown_and_never_undone() {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Equal((200, "kept"), await app.PostAsync(app.Sns.Sign(app.Sns.Confirmation("UnsubscribeConfirmation"))));
        Assert.Empty(Confirmations(app.Sns));
        Assert.Matches($"(?m)^(Warning|Error|Critical): .*{FakeSns.TopicArn}", app.Log.Text);
    }

    [Fact]
    public async Task No_secret_of_a_subscription_and_no_address_gets_to_the_disk_or_the_log() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Sign(app.Sns.Confirmation()));
        await app.PostAsync(app.Sns.Sign(app.Sns.Confirmation("UnsubscribeConfirmation")));
        ConfirmWith(app.Sns, 500);
        await app.PostAsync(app.Sns.Sign(app.Sns.Confirmation()));
        await app.PostAsync(app.Sns.Sign(app.Sns.Confirmation()).Replace("secret-token", "secret-token "));
        await app.PostAsync(app.Sns.Bounce("jane@example.com"));
        await app.PostAsync(app.Sns.Bounce("jane@example.com").Replace("jane", "joan"));
        await app.PostAsync(app.Sns.Signed("a body that nobody understands"));
        await app.HistoryAsync("jane@example.com");
        await app.StopAsync();

        string[] secrets = ["secret-token", "secret-subscribe-url", "secret-unsubscribe"];
        string[] files = Directory.GetFiles(app.Folder, "*", SearchOption.AllDirectories);
        Assert.True(files.Length >= 3);
        Assert.All(files.Select(file => File.ReadAllText(file, Encoding.Latin1)), text =>
            Assert.All(secrets, secret => Assert.DoesNotContain(secret, text)));
        string[] privacy = [.. secrets, "@example.com", "a body that", "user unknown"];
        Assert.All(privacy, text => Assert.DoesNotContain(text, app.Log.Text));
    }
}
