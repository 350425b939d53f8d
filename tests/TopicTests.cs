/// <summary>Which topics are believed, and which URL may name their certificate.</summary>
public sealed class TopicTests {
    const string Name = "SimpleNotificationService-7506a1e35b36ef5a444dd1a8e7cc3ed8.pem";

    [Theory]
    [InlineData("arn:aws:sns:us-east-1:123456789012:t", "sns.us-east-1.amazonaws.com")]
    [InlineData("arn:aws:sns:ap-southeast-7:123456789012:t", "sns.ap-southeast-7.amazonaws.com")]
    [InlineData("arn:aws:sns:mx-central-1:123456789012:t", "sns.mx-central-1.amazonaws.com")]
    [InlineData("arn:aws-cn:sns:cn-north-1:123456789012:t", "sns.cn-north-1.amazonaws.com.cn")]
    [InlineData("arn:aws-us-gov:sns:us-gov-west-1:123456789012:t", "sns.us-gov-west-1.amazonaws.com")]
    [InlineData("arn:aws-iso:sns:us-iso-east-1:123456789012:t", "sns.us-iso-east-1.c2s.ic.gov")]
    [InlineData("arn:aws-iso-b:sns:us-isob-east-1:123456789012:t", "sns.us-isob-east-1.sc2s.sgov.gov")]
    [InlineData("arn:aws-iso-e:sns:eu-isoe-west-1:123456789012:t", "sns.eu-isoe-west-1.cloud.adc-e.uk")]
    [InlineData("arn:aws-iso-f:sns:us-isof-south-1:123456789012:t", "sns.us-isof-south-1.csp.hci.ic.gov")]
    [InlineData("arn:aws-eusc:sns:eusc-de-east-1:123456789012:t", "sns.eusc-de-east-1.amazonaws.eu")]
    public void A_topic_of_every_partition_has_its_own_host(string arn, string host) {
        Assert.Equal(Name, Topic.Parse(arn)?.CertificateName($"https://{host}/{Name}"));
        Assert.Null(Topic.Parse(arn)?.CertificateName($"https://sns.us-west-1.amazonaws.com/{Name}"));
        Assert.Null(Topic.Parse(arn)?.CertificateName($"https://{host}.cn/{Name}"));
    }

    [Theory]
    [InlineData("")]
    [InlineData("email-feedback")]
    [InlineData("*")]
    [InlineData("arn:aws:sns:us-east-1:123456789012:*")]
    [InlineData("arn:aws:sns:us-east-1:123456789012:")]
    [InlineData("arn:aws:sns:us-east-1:123456789012:feedback.fifo")]
    [InlineData("arn:aws:sns:us-east-1:123456789012:feedback:subscription")]
    [InlineData("arn:aws:sns:us-east-1:123456789012:feedback\n")]
    [InlineData("arn:aws:sns:us-east-1:12345678901:feedback")]
    [InlineData("arn:aws:sns::123456789012:feedback")]
    [InlineData("arn:aws:sns:evil.example/:123456789012:feedback")]
    [InlineData("arn:aws:sns:s3-us-west-2:123456789012:feedback")]
    [InlineData("arn:aws:sqs:us-east-1:123456789012:feedback")]
    [InlineData("arn:aws-moon:sns:us-east-1:123456789012:feedback")]
    [InlineData("ARN:AWS:SNS:US-EAST-1:123456789012:feedback")]
    [InlineData(" arn:aws:sns:us-east-1:123456789012:feedback")]
    public void What_is_not_the_ARN_of_a_standard_topic_is_none(string arn) => Assert.Null(Topic.Parse(arn));

    [Theory]
    [InlineData("http://sns.us-east-1.amazonaws.com/" + Name)]
    [InlineData("HTTPS://sns.us-east-1.amazonaws.com/" + Name)]
    [InlineData("https://SNS.us-east-1.amazonaws.com/" + Name)]
    [InlineData("https://sns.us-east-2.amazonaws.com/" + Name)]
    [InlineData("https://sns.us-east-1.amazonaws.com.cn/" + Name)]
    [InlineData("https://sns.us-east-1.amazonaws.com.evil.example/" + Name)]
    [InlineData("https://sns.us-east-1.amazonaws.com./" + Name)]
    [InlineData("https://sns.us-east-1.amazonaws.com:443/" + Name)]
    [InlineData("https://sns.us-east-1.amazonaws.com@evil.example/" + Name)]
    [InlineData("https://user@sns.us-east-1.amazonaws.com/" + Name)]
    [InlineData("https://sns.us-east-1.amazonaws.com\\@evil.example/" + Name)]
    [InlineData("https://evil.example/https://sns.us-east-1.amazonaws.com/" + Name)]
    [InlineData("https://sns.s3-us-west-2.amazonaws.com/" + Name)]
    [InlineData("https://sns.us-east-1.amazonaws\u3002com/" + Name)]
    [InlineData("https://sns.us-east-1.amazonaws.com//" + Name)]
    [InlineData("https://sns.us-east-1.amazonaws.com/a/" + Name)]
    [InlineData("https://sns.us-east-1.amazonaws.com/../" + Name)]
    [InlineData("https://sns.us-east-1.amazonaws.com/%2e%2e/" + Name)]
    [InlineData("https://sns.us-east-1.amazonaws.com/" + Name + "?")]
    [InlineData("https://sns.us-east-1.amazonaws.com/" + Name + "#")]
    [InlineData("https://sns.us-east-1.amazonaws.com/" + Name + "\n")]
    [InlineData("https://sns.us-east-1.amazonaws.com/" + Name + " ")]
    [InlineData("https://sns.us-east-1.amazonaws.com/" + Name + ".txt")]
    [InlineData("https://sns.us-east-1.amazonaws.com/?Action=GetX&a=" + Name)]
    [InlineData("https://sns.us-east-1.amazonaws.com/SimpleNotificationService-../../x.pem")]
    [InlineData("https://sns.us-east-1.amazonaws.com/SimpleNotificationService-.pem")]
    [InlineData("https://sns.us-east-1.amazonaws.com/SimpleNotificationService-7506a1e3.PEM")]
    [InlineData("https://sns.us-east-1.amazonaws.com/cert.pem")]
    [InlineData("https://sns.us-east-1.amazonaws.com/")]
    [InlineData("")]
    public void A_certificate_URL_that_is_not_exactly_the_topics_is_refused(string url) =>
        Assert.Null(Topic.Parse(FakeSns.TopicArn)!.CertificateName(url));

    [Fact]
    public async Task A_genuine_message_from_another_topic_is_refused_before_any_certificate_is_fetched() {
        await using var app = await ReceiverApp.StartAsync();
        const string Ours = FakeSns.TopicArn;
        foreach (string arn in (string[])[Ours + "2", Ours.Replace("123", "999"), Ours.ToUpperInvariant(), ""]) {
            var envelope = app.Sns.Notification("hello");
            envelope["TopicArn"] = arn;
            Assert.Equal((403, "TopicArn is not among Sns:TopicArns"), await app.PostAsync(app.Sns.Sign(envelope)));
        }
        Assert.Empty(app.Sns.Requests);
    }

    [Fact]
    public async Task A_message_that_names_a_foreign_certificate_is_refused_before_it_is_fetched() {
        await using var app = await ReceiverApp.StartAsync();
        var envelope = app.Sns.Notification("hello");
        envelope["SigningCertURL"] = "https://evil.example/" + app.Sns.Name;
        Assert.Equal((403, "SigningCertURL is not of this topic's SNS"), await app.PostAsync(app.Sns.Sign(envelope)));
        Assert.Empty(app.Sns.Requests);
    }

    [Fact]
    public async Task Each_of_several_topics_is_believed_by_its_own_host_alone() {
        const string Beijing = "arn:aws-cn:sns:cn-north-1:123456789012:feedback";
        await using var app = await ReceiverApp.StartAsync(["Sns:TopicArns:1=" + Beijing]);
        var envelope = app.Sns.Notification("hello");
        envelope["TopicArn"] = Beijing;
        Assert.Equal(403, (await app.PostAsync(app.Sns.Sign(envelope))).Status);
        envelope["SigningCertURL"] = "https://sns.cn-north-1.amazonaws.com.cn/" + app.Sns.Name;
        Assert.Equal(200, (await app.PostAsync(app.Sns.Sign(envelope))).Status);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Signed("hello"))).Status);
    }
}
