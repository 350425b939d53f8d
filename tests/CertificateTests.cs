using System.Net;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.Extensions.DependencyInjection;

/// <summary>Where the signing certificate comes from, and that no stranger can make the receiver ask for it often, wait
/// for it long, or forget it.</summary>
public sealed class CertificateTests {
    static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    static string FileOf(ReceiverApp app, string name) => Path.Combine(app.Folder, "certificates", name);
    static string NameOf(int number) => $"SimpleNotificationService-{number:x32}.pem";

    static void AnswerWith(FakeSns sns, int status, string body = "") => sns.Answer = (_, _) => Task.FromResult(
        new HttpResponseMessage((HttpStatusCode)status) { Content = new StringContent(body) });

    /// <summary>A signed message that names another certificate of the same SNS.</summary>
    static string SignedNaming(FakeSns sns, string certificateName, string message = "hello") {
        var envelope = sns.Notification(message);
        envelope["SigningCertURL"] = "https://sns.us-east-1.amazonaws.com/" + certificateName;
        return sns.Sign(envelope);
    }

    static async Task AssertAskedAgainAsync(ReceiverApp app) {
        using var content = new StringContent(app.Sns.Signed("hello"));
        using var response = await app.Webhook.PostAsync("/sns", content, Cancellation);
        Assert.Equal((503, true), ((int)response.StatusCode, response.Headers.RetryAfter is not null));
    }

    [Fact]
    public async Task Many_messages_take_one_download() {
        await using var app = await ReceiverApp.StartAsync();
        foreach (string version in (string[])["1", "2", "1", "2", "2"])
            Assert.Equal(200, (await app.PostAsync(app.Sns.Signed("hello", version))).Status);
        Assert.Equal([app.Sns.CertUrl], app.Sns.Requests);
    }

    [Fact]
    public async Task Two_hundred_messages_at_once_take_one_download() {
        var arrivals = new Arrivals(200);
        await using var app = await ReceiverApp.StartAsync(with: arrivals.AddTo);
        app.Sns.Answer = async (request, cancellation) => {
            await arrivals.All;
            return await app.Sns.DefaultAnswerAsync(request, cancellation);
        };
        var answers = await Task.WhenAll(Enumerable.Range(0, 200).Select(_ => app.PostAsync(app.Sns.Signed("hello"))));
        Assert.All(answers, answer => Assert.Equal(200, answer.Status));
        Assert.Equal([app.Sns.CertUrl], app.Sns.Requests);
    }

    [Fact]
    public async Task Names_that_a_stranger_makes_up_are_logged_once_in_ten_seconds() {
        await using var app = await ReceiverApp.StartAsync();
        app.Sns.Answer = (_, _) => Task.FromResult(new HttpResponseMessage(System.Net.HttpStatusCode.Forbidden));
        for (int number = 0; number < 30; number++) {
            var envelope = app.Sns.Notification("hello");
            envelope["SigningCertURL"] = $"https://sns.us-east-1.amazonaws.com/SimpleNotificationService-{number:x8}.pem";
            Assert.Equal(503, (await app.PostAsync(app.Sns.Sign(envelope))).Status);
            if (number == 19) app.Clock.Advance(TimeSpan.FromSeconds(10));
        }
        Assert.Equal(30, app.Sns.Requests.Count);
        Assert.Equal(2, System.Text.RegularExpressions.Regex.Count(app.Log.Text, "cannot be had from SNS"));
    }

    [Fact]
    public async Task A_certificate_in_the_directory_is_not_downloaded() {
        await using var app = await ReceiverApp.StartAsync();
        Directory.CreateDirectory(FileOf(app, ""));
        await File.WriteAllTextAsync(FileOf(app, app.Sns.Name), app.Sns.Pem, Cancellation);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Signed("hello"))).Status);
        Assert.Empty(app.Sns.Requests);
    }

    [Fact]
    public async Task A_download_is_kept_in_the_directory_and_serves_the_next_start() {
        await using var first = await ReceiverApp.StartAsync();
        Assert.Equal(200, (await first.PostAsync(first.Sns.Signed("hello"))).Status);
        await first.StopAsync();
        await using var second = await ReceiverApp.StartAsync(folder: first.Folder, sns: first.Sns);
        Assert.Equal(200, (await second.PostAsync(second.Sns.Signed("hello"))).Status);
        Assert.Equal([second.Sns.CertUrl], second.Sns.Requests);
        Assert.Equal([FileOf(second, second.Sns.Name)], Directory.GetFiles(FileOf(second, "")));
    }

    [Fact]
    public async Task A_broken_file_in_the_directory_is_replaced_by_a_download() {
        await using var app = await ReceiverApp.StartAsync();
        Directory.CreateDirectory(FileOf(app, ""));
        await File.WriteAllTextAsync(FileOf(app, app.Sns.Name), app.Sns.Pem[..200], Cancellation);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Signed("hello"))).Status);
        Assert.Equal(app.Sns.Pem, await File.ReadAllTextAsync(FileOf(app, app.Sns.Name), Cancellation));
    }

    [Fact]
    public async Task A_directory_that_cannot_be_written_costs_a_warning_and_nothing_else() {
        string file = Path.GetTempFileName();
        await using var app = await ReceiverApp.StartAsync([$"Sns:CertificateDirectory={file}/certificates"]);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Signed("hello"))).Status);
        Assert.Contains("Warning: Signing certificate " + app.Sns.Name, app.Log.Text);
    }

    [Fact]
    public async Task A_failure_is_remembered_for_60_seconds_and_then_asked_again() {
        await using var app = await ReceiverApp.StartAsync();
        AnswerWith(app.Sns, 500);
        await AssertAskedAgainAsync(app);

        app.Sns.Answer = app.Sns.DefaultAnswerAsync;
        app.Clock.Advance(TimeSpan.FromSeconds(59.9));
        await AssertAskedAgainAsync(app);
        app.Clock.Advance(TimeSpan.FromSeconds(0.1));
        Assert.Equal(200, (await app.PostAsync(app.Sns.Signed("hello"))).Status);
        Assert.Equal(2, app.Sns.Requests.Count);
    }

    [Theory]
    [InlineData(500, "")]
    [InlineData(503, "{pem}")]
    [InlineData(404, "{pem}")]
    [InlineData(403, "<Error><Code>AccessDenied</Code></Error>")]
    [InlineData(204, "")]
    [InlineData(206, "{pem}")]
    [InlineData(200, "")]
    [InlineData(200, "garbage")]
    [InlineData(200, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")]
    [InlineData(200, "{pem}{pem}")]
    [InlineData(200, "{pem}{10 MB}")]
    public async Task Anything_but_one_certificate_is_asked_for_again(int status, string body) {
        await using var app = await ReceiverApp.StartAsync();
        body = body.Replace("{pem}", app.Sns.Pem + "\n").Replace("{10 MB}", new string(' ', 10 << 20));
        AnswerWith(app.Sns, status, body);
        await AssertAskedAgainAsync(app);
        Assert.False(File.Exists(FileOf(app, app.Sns.Name)));
    }

    [Theory]
    [InlineData(301)]
    [InlineData(302)]
    [InlineData(307)]
    public async Task A_redirect_is_not_followed(int status) {
        await using var app = await ReceiverApp.StartAsync();
        app.Sns.Answer = (_, _) => Task.FromResult(new HttpResponseMessage((HttpStatusCode)status) {
            Headers = { Location = new Uri("https://sns.us-east-1.amazonaws.com/" + NameOf(1)) },
        });
        await AssertAskedAgainAsync(app);
        Assert.Equal([app.Sns.CertUrl], app.Sns.Requests);
    }

    [Fact]
    public async Task A_host_that_cannot_be_reached_is_asked_again() {
        await using var app = await ReceiverApp.StartAsync();
        app.Sns.Answer = (_, _) => throw new HttpRequestException("no such host");
        await AssertAskedAgainAsync(app);
    }

    [Fact(Timeout = 30_000)]
    public async Task A_host_that_never_answers_is_given_five_seconds() {
        await using var app = await ReceiverApp.StartAsync();
        var asked = new TaskCompletionSource();
        app.Sns.Answer = async (_, cancellation) => {
            asked.SetResult();
            await Task.Delay(Timeout.Infinite, cancellation);
            return new();
        };
        var answer = AssertAskedAgainAsync(app);
        await asked.Task.WaitAsync(TestContext.Current.CancellationToken);
        app.Clock.Advance(TimeSpan.FromSeconds(4.9));
        Assert.False(answer.IsCompleted);
        app.Clock.Advance(TimeSpan.FromSeconds(0.1));
        await answer;
    }

    [Fact]
    public async Task A_hundred_made_up_names_do_not_push_a_good_certificate_out() {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Equal(200, (await app.PostAsync(app.Sns.Signed("hello"))).Status);
        Directory.Delete(FileOf(app, ""), recursive: true);
        AnswerWith(app.Sns, 404);
        for (int name = 0; name < 100; name++)
            Assert.Equal(503, (await app.PostAsync(SignedNaming(app.Sns, NameOf(name)))).Status);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Signed("hello"))).Status);
    }

    [Fact]
    public async Task Sixteen_certificates_are_kept_in_memory_and_the_oldest_makes_room() {
        await using var app = await ReceiverApp.StartAsync();
        for (int name = 0; name < 17; name++, app.Clock.Advance(TimeSpan.FromSeconds(1)))
            Assert.Equal(200, (await app.PostAsync(SignedNaming(app.Sns, NameOf(name)))).Status);
        Directory.Delete(FileOf(app, ""), recursive: true);
        for (int name = 16; name >= 0; name--)
            Assert.Equal(200, (await app.PostAsync(SignedNaming(app.Sns, NameOf(name)))).Status);
        Assert.Equal([.. Enumerable.Range(0, 17), 0], app.Sns.Requests.Select(url => Convert.ToInt32(url[^6..^4], 16)));
    }

    [Fact]
    public async Task Four_downloads_go_on_at_once_and_a_fifth_is_asked_for_again() {
        await using var app = await ReceiverApp.StartAsync();
        TaskCompletionSource fourAsked = new(), open = new();
        app.Sns.Answer = async (request, cancellation) => {
            if (app.Sns.Requests.Count == 4) fourAsked.TrySetResult();
            await open.Task;
            return await app.Sns.DefaultAnswerAsync(request, cancellation);
        };
        var four = Enumerable.Range(1, 4).Select(name => app.PostAsync(SignedNaming(app.Sns, NameOf(name)))).ToList();
        await fourAsked.Task;
        Assert.Equal(503, (await app.PostAsync(SignedNaming(app.Sns, NameOf(5)))).Status);
        Assert.Equal(4, app.Sns.Requests.Count);
        open.SetResult();
        Assert.All(await Task.WhenAll(four), answer => Assert.Equal(200, answer.Status));
        Assert.Equal(200, (await app.PostAsync(SignedNaming(app.Sns, NameOf(5)))).Status);
    }

    [Fact]
    public async Task A_name_that_is_missing_on_one_regions_host_is_not_held_against_anothers() {
        string elsewhere = FakeSns.TopicArn.Replace("us-east-1", "eu-west-1");
        await using var app = await ReceiverApp.StartAsync(["Sns:TopicArns:1=" + elsewhere]);
        var forged = app.Sns.Notification("forged");
        (forged["TopicArn"], forged["SigningCertURL"]) = (elsewhere, app.Sns.CertUrl.Replace("us-east-1", "eu-west-1"));
        AnswerWith(app.Sns, 404);
        Assert.Equal(503, (await app.PostAsync(app.Sns.Sign(forged))).Status);
        app.Sns.Answer = app.Sns.DefaultAnswerAsync;
        Assert.Equal(200, (await app.PostAsync(app.Sns.Signed("hello"))).Status);
    }
}

/// <summary>Tells when so many requests have arrived.</summary>
sealed class Arrivals(int expected) : IStartupFilter {
    readonly TaskCompletionSource _all = new(TaskCreationOptions.RunContinuationsAsynchronously);
    int _arrived;

    public Task All => _all.Task;

    public void AddTo(WebApplicationBuilder builder) => builder.Services.AddSingleton<IStartupFilter>(this);

    public Action<IApplicationBuilder> Configure(Action<IApplicationBuilder> next) =>
        app => next(app.Use(receive => context => {
            if (Interlocked.Increment(ref _arrived) == expected) _all.SetResult();
            return receive(context);
        }));
}
